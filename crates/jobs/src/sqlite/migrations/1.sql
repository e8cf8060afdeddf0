-- Jobs. The record is the job; the other columns are made of it, to search by.
CREATE TABLE jobs (
    number      INTEGER PRIMARY KEY,  -- the order in which jobs were accepted
    id          BLOB NOT NULL UNIQUE, -- 16 bytes; ids sort by the time of their making
    owner       TEXT NOT NULL,
    state       TEXT NOT NULL,
    finished_at INTEGER,              -- microseconds since 1970
    ended       INTEGER UNIQUE,       -- the order of the ends, whatever the clock says
    bytes       INTEGER NOT NULL,     -- what counts against the bound on ended jobs
    record      TEXT NOT NULL,        -- JSON
    checksum    BLOB NOT NULL         -- SHA-256 of the record
) STRICT;

CREATE INDEX unfinished_jobs ON jobs (number) WHERE ended IS NULL;
CREATE INDEX jobs_of_owner ON jobs (owner, id);
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- Rows of jobs whose record does not fit its checksum any more: kept for whoever looks into it, and read by nobody.
CREATE TABLE damaged (
    number   INTEGER PRIMARY KEY,
    id       BLOB,
    found_at INTEGER NOT NULL,
    why      TEXT NOT NULL,
    record   BLOB,
    checksum BLOB
) STRICT;
