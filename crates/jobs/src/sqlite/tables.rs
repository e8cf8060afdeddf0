//! The statements: reading and writing rows on one connection. Whoever writes has begun a transaction.

use std::time::{Duration, SystemTime};

use pentimento_types::{Job, JobId};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::record::{self, Damage, Record, state_name};
use crate::{JobFilter, MemoryLimits};

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("the database of the jobs refused")]
    Database(#[from] rusqlite::Error),
    #[error("job {id} is damaged")]
    Damaged {
        id: JobId,
        #[source]
        source: Damage,
    },
    #[error("job {id} cannot be written down")]
    Unwritable {
        id: JobId,
        #[source]
        source: serde_json::Error,
    },
}

/// How many ended jobs there are, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
}

/// A row as it is found, which may be damaged.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) number: i64,
    pub(super) id: Vec<u8>,
    pub(super) owner: String,
    pub(super) state: String,
    pub(super) ended: Option<i64>,
    pub(super) record: Vec<u8>,
    pub(super) checksum: Vec<u8>,
}

impl Found {
    pub(super) const COLUMNS: &str = "number, id, owner, state, ended, record, checksum";

    /// Whatever type a damaged column has.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text =
            |index| Ok::<_, rusqlite::Error>(String::from_utf8_lossy(&bytes(row, index)?).into_owned());
        let ended = match row.get(4)? {
            Value::Integer(ended) => Some(ended),
            Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_) => None,
        };
        Ok(Self {
            number: row.get(0)?,
            id: bytes(row, 1)?,
            owner: text(2)?,
            state: text(3)?,
            ended,
            record: bytes(row, 5)?,
            checksum: bytes(row, 6)?,
        })
    }
}

/// False where the id is there already.
pub(super) fn insert(db: &Connection, job: &Job, record: &Record) -> Result<bool, TableError> {
    let mut statement = db.prepare_cached(
        "INSERT INTO jobs (id, owner, state, bytes, record, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        job.id.as_uuid().as_bytes(),
        job.owner.as_str(),
        state_name(job.state),
        signed(record.bytes()),
        record.text,
        record.checksum,
    ])?;
    Ok(inserted == 1)
}

pub(super) fn find(db: &Connection, id: JobId) -> Result<Option<Job>, TableError> {
    let mut statement = db.prepare_cached("SELECT record, checksum FROM jobs WHERE id = ?1")?;
    let found = statement
        .query_row([id.as_uuid().as_bytes()], stored)
        .optional()?;
    let job = found.map(|(text, checksum)| record::job(&text, &checksum));
    job.transpose()
        .map_err(|source| TableError::Damaged { id, source })
}

/// Writes a job down that is there, and counts it once it has ended.
pub(super) fn update(db: &Connection, job: &Job, ended: &mut Ended) -> Result<(), TableError> {
    let record = Record::of(job).map_err(|source| TableError::Unwritable { id: job.id, source })?;
    let mut statement = db.prepare_cached(
        "UPDATE jobs SET owner = ?2, state = ?3, finished_at = ?4, bytes = ?5, record = ?6, checksum = ?7,
            ended = CASE WHEN ?8 THEN (SELECT ifnull(max(ended), 0) + 1 FROM jobs) END
         WHERE id = ?1",
    )?;
    statement.execute(params![
        job.id.as_uuid().as_bytes(),
        job.owner.as_str(),
        state_name(job.state),
        job.finished_at.map(micros),
        signed(record.bytes()),
        record.text,
        record.checksum,
        job.state.is_final(),
    ])?;
    if job.state.is_final() {
        ended.jobs += 1;
        ended.bytes += record.bytes();
    }
    Ok(())
}

/// Forgets those that ended first while there are too many, or too large ones.
pub(super) fn forget_oldest(
    db: &Connection,
    limits: &MemoryLimits,
    ended: &mut Ended,
) -> Result<(), TableError> {
    let mut statement = db.prepare_cached(
        "DELETE FROM jobs WHERE number = (SELECT number FROM jobs WHERE ended IS NOT NULL ORDER BY ended LIMIT 1)
         RETURNING bytes",
    )?;
    while ended.jobs > limits.finished as u64 || ended.bytes > limits.finished_bytes {
        let bytes: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
        let Some(bytes) = bytes else { break };
        ended.jobs = ended.jobs.saturating_sub(1);
        ended.bytes = ended.bytes.saturating_sub(bytes.unsigned_abs());
    }
    Ok(())
}

/// Forgets the jobs that ended before a time, and returns their ids.
pub(super) fn expire(
    db: &Connection,
    finished_before: SystemTime,
    ended: &mut Ended,
) -> Result<Vec<JobId>, TableError> {
    let mut statement = db.prepare_cached("DELETE FROM jobs WHERE finished_at < ?1 RETURNING id, bytes")?;
    let rows = statement.query_map([micros(finished_before)], |row| {
        Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
    })?;
    let mut ids = Vec::new();
    for row in rows {
        let (id, bytes) = row?;
        ended.jobs = ended.jobs.saturating_sub(1);
        ended.bytes = ended.bytes.saturating_sub(bytes.unsigned_abs());
        ids.push(JobId::from_u128(u128::from_be_bytes(id)));
    }
    ids.sort_unstable();
    Ok(ids)
}

pub(super) fn count_ended(db: &Connection) -> Result<Ended, TableError> {
    let counted = db.query_row(
        "SELECT count(*), ifnull(sum(bytes), 0) FROM jobs WHERE ended IS NOT NULL",
        [],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    Ok(Ended {
        jobs: counted.0.unsigned_abs(),
        bytes: counted.1.unsigned_abs(),
    })
}

/// By ascending id. Damaged ones are left out: they are found at the next start.
pub(super) fn list(db: &Connection, filter: &JobFilter) -> Result<Vec<Job>, TableError> {
    let mut sql = "SELECT record, checksum FROM jobs WHERE true".to_owned();
    let mut values: Vec<Value> = Vec::new();
    if !filter.states.is_empty() {
        let marks = vec!["?"; filter.states.len()].join(", ");
        sql.push_str(&format!(" AND state IN ({marks})"));
        let names = filter.states.iter().map(|state| state_name(*state).to_owned());
        values.extend(names.map(Value::Text));
    }
    if let Some(owner) = &filter.owner {
        sql.push_str(" AND owner = ?");
        values.push(Value::Text(owner.as_str().to_owned()));
    }
    if let Some(after) = filter.after {
        sql.push_str(" AND id > ?");
        values.push(Value::Blob(after.as_uuid().as_bytes().to_vec()));
    }
    sql.push_str(" ORDER BY id");
    if filter.limit > 0 {
        sql.push_str(" LIMIT ?");
        values.push(Value::Integer(signed(filter.limit as u64)));
    }
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), stored)?;
    let mut jobs = Vec::new();
    for row in rows {
        let (text, checksum) = row?;
        jobs.extend(record::job(&text, &checksum).ok());
    }
    Ok(jobs)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<(Vec<u8>, Vec<u8>)> {
    Ok((bytes(row, 0)?, bytes(row, 1)?))
}

/// As they are stored, also where a text is no UTF-8 any more.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    })
}

/// Since 1970; what lies beyond all times is at their end.
pub(super) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since: Duration| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

/// SQLite's integers have a sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
