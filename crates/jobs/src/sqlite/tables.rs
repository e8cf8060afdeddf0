//! The statements: reading and writing rows on one connection. Whoever writes has begun a transaction.

use std::time::{Duration, SystemTime};

use pentimento_types::{ApiKeyId, Job, JobId};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params, params_from_iter};

use super::record::{self, Damage, Record, state_name};
use crate::{JobFilter, JobLimits};

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

impl Ended {
    const fn forget(&mut self, (id, bytes): (JobId, u64)) -> JobId {
        self.jobs = self.jobs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        id
    }
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
    pub(super) key: Option<Vec<u8>>,
    pub(super) dialect: Vec<u8>,
    pub(super) dialect_number: Option<i64>,
}

impl Found {
    pub(super) const COLUMNS: &str =
        "number, id, owner, state, ended, record, checksum, key, dialect, dialect_number";

    /// Whatever type a damaged column has.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text =
            |index| Ok::<_, rusqlite::Error>(String::from_utf8_lossy(&bytes(row, index)?).into_owned());
        let integer = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_i64().ok());
        let key = match row.get_ref(7)? {
            ValueRef::Null => None,
            ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
                Some(bytes(row, 7)?)
            }
        };
        Ok(Self {
            number: row.get(0)?,
            id: bytes(row, 1)?,
            owner: text(2)?,
            state: text(3)?,
            ended: integer(4)?,
            record: bytes(row, 5)?,
            checksum: bytes(row, 6)?,
            key,
            dialect: bytes(row, 8)?,
            dialect_number: integer(9)?,
        })
    }
}

/// A new job. Whether it may be is asked before.
pub(super) fn insert(db: &Connection, job: &Job, record: &Record) -> Result<(), TableError> {
    let mut statement = db.prepare_cached(
        "INSERT INTO jobs (id, owner, state, bytes, record, checksum, key, dialect, dialect_number)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        job.id.as_uuid().as_bytes(),
        job.owner.as_str(),
        state_name(job.state),
        signed(record.bytes()),
        record.text,
        record.checksum,
        key_of(job),
        job.dialect.name,
        job.dialect.number.map(u64::cast_signed),
    ])?;
    Ok(())
}

/// The name that its caller gave to the request.
pub(super) fn key_of(job: &Job) -> Option<&str> {
    job.idempotency.as_ref().map(|request| request.key.as_str())
}

pub(super) fn is_known(db: &Connection, id: JobId) -> Result<bool, TableError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?;
    Ok(statement.exists([id.as_uuid().as_bytes()])?)
}

pub(super) fn is_number_taken(db: &Connection, dialect: &str, number: u64) -> Result<bool, TableError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM jobs WHERE dialect = ?1 AND dialect_number = ?2")?;
    Ok(statement.exists(params![dialect, number.cast_signed()])?)
}

pub(super) fn find_by_number(db: &Connection, dialect: &str, number: u64) -> Result<Option<Job>, TableError> {
    let sql = "SELECT record, checksum, id FROM jobs WHERE dialect = ?1 AND dialect_number = ?2";
    find_one(db, sql, params![dialect, number.cast_signed()])
}

/// The latest job of an owner's key. Whether the key still stands for it is asked of the job.
pub(super) fn find_by_key(db: &Connection, owner: &ApiKeyId, key: &str) -> Result<Option<Job>, TableError> {
    let sql =
        "SELECT record, checksum, id FROM jobs WHERE owner = ?1 AND key = ?2 ORDER BY number DESC LIMIT 1";
    find_one(db, sql, params![owner.as_str(), key])
}

fn find_one(db: &Connection, sql: &str, params: impl Params) -> Result<Option<Job>, TableError> {
    let mut statement = db.prepare_cached(sql)?;
    let found = statement
        .query_row(params, |row| {
            Ok((bytes(row, 0)?, bytes(row, 1)?, job_id(row, 2)?))
        })
        .optional()?;
    let Some((text, checksum, id)) = found else {
        return Ok(None);
    };
    let job = record::job(&text, &checksum);
    job.map(Some).map_err(|source| TableError::Damaged { id, source })
}

pub(super) fn find(db: &Connection, id: JobId) -> Result<Option<Job>, TableError> {
    let sql = "SELECT record, checksum, id FROM jobs WHERE id = ?1";
    find_one(db, sql, [id.as_uuid().as_bytes()])
}

/// Writes a job down that is there, and counts it once it has ended.
pub(super) fn update(db: &Connection, job: &Job, ended: &mut Ended) -> Result<(), TableError> {
    let record = Record::of(job).map_err(|source| TableError::Unwritable { id: job.id, source })?;
    let mut statement = db.prepare_cached(
        "UPDATE jobs SET owner = ?2, state = ?3, finished_at = ?4, bytes = ?5, record = ?6, checksum = ?7, key = ?9,
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
        key_of(job),
    ])?;
    if job.state.is_final() {
        ended.jobs += 1;
        ended.bytes += record.bytes();
    }
    Ok(())
}

/// Forgets ended jobs while there are too many, or too large ones, and returns their ids: the one that ended first of those
/// whose webhooks are not under way, and when all are, the one that ended first.
pub(super) fn forget_oldest(
    db: &Connection,
    limits: &JobLimits,
    ended: &mut Ended,
) -> Result<Vec<JobId>, TableError> {
    let mut statement = db.prepare_cached(
        "DELETE FROM jobs WHERE number = coalesce(
            (SELECT number FROM jobs WHERE ended IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM outbox WHERE job = jobs.id AND outbox.state = 'pending')
                ORDER BY ended LIMIT 1),
            (SELECT number FROM jobs WHERE ended IS NOT NULL ORDER BY ended LIMIT 1))
         RETURNING id, bytes",
    )?;
    let mut ids = Vec::new();
    while ended.jobs > limits.finished as u64 || ended.bytes > limits.finished_bytes {
        let forgotten = statement.query_row([], forgotten).optional()?;
        let Some(forgotten) = forgotten else { break };
        ids.push(ended.forget(forgotten));
    }
    Ok(ids)
}

fn forgotten(row: &Row<'_>) -> rusqlite::Result<(JobId, u64)> {
    Ok((job_id(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs()))
}

/// Forgets a job that has ended; false where there is none.
pub(super) fn remove(db: &Connection, id: JobId, ended: &mut Ended) -> Result<bool, TableError> {
    let mut statement =
        db.prepare_cached("DELETE FROM jobs WHERE id = ?1 AND ended IS NOT NULL RETURNING id, bytes")?;
    let removed = statement
        .query_row([id.as_uuid().as_bytes()], forgotten)
        .optional()?;
    Ok(removed.map(|removed| ended.forget(removed)).is_some())
}

/// Forgets the jobs that ended before a time and whose webhooks are not under way, and returns their ids.
pub(super) fn expire(
    db: &Connection,
    finished_before: SystemTime,
    ended: &mut Ended,
) -> Result<Vec<JobId>, TableError> {
    let mut statement = db.prepare_cached(
        "DELETE FROM jobs WHERE finished_at < ?1
            AND NOT EXISTS (SELECT 1 FROM outbox WHERE job = jobs.id AND outbox.state = 'pending')
         RETURNING id, bytes",
    )?;
    let rows = statement.query_map([micros(finished_before)], forgotten)?;
    let mut ids = Vec::new();
    for row in rows {
        ids.push(ended.forget(row?));
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
        sql.push_str(if filter.newest_first {
            " AND id < ?"
        } else {
            " AND id > ?"
        });
        values.push(Value::Blob(after.as_uuid().as_bytes().to_vec()));
    }
    sql.push_str(if filter.newest_first {
        " ORDER BY id DESC"
    } else {
        " ORDER BY id"
    });
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

/// One that is damaged is nobody's.
pub(super) fn job_id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    let id = bytes(row, column)?.try_into().map_or(0, u128::from_be_bytes);
    Ok(JobId::from_u128(id))
}

/// As they are stored, also where a text is no UTF-8 any more.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
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
