-- Callers' own names for their requests, dialects' numbers for jobs, and webhooks.
ALTER TABLE jobs ADD COLUMN key TEXT;
ALTER TABLE jobs ADD COLUMN dialect TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN dialect_number INTEGER;
CREATE INDEX jobs_of_key ON jobs (owner, key, number) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX jobs_of_number ON jobs (dialect, dialect_number) WHERE dialect_number IS NOT NULL;

-- How far the webhook of a job is. Whose it is and where it goes stands in the job's record, which has a checksum.
CREATE TABLE outbox (
    job         BLOB PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE ON UPDATE CASCADE,
    state       TEXT NOT NULL,
    due         INTEGER NOT NULL, -- microseconds since 1970
    sendings    INTEGER NOT NULL,
    in_round    INTEGER NOT NULL,
    round_began INTEGER NOT NULL, -- microseconds since 1970
    problem     TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX pending_webhooks ON outbox (job) WHERE state = 'pending';
