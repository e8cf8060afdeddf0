//! What is done when the file is opened: every record is looked at, damaged ones are set aside, and jobs that the process
//! before was running wait again.

use std::path::PathBuf;
use std::time::SystemTime;

use pentimento_types::{Job, JobState};
use rusqlite::{Connection, TransactionBehavior, params};

use super::outbox_table;
use super::record::{self, Head, Record, state_name};
use super::tables::{self, Ended, Found, TableError, micros};
use crate::{OutboxEntry, OutboxFilter, OutboxState, Transition};

/// What was found when the records were opened, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Jobs that have not ended.
    pub unfinished: usize,
    /// Those of them that were running when the process before ended.
    pub crashed: usize,
    /// Records that are damaged. They were set aside.
    pub damaged: usize,
    /// Pages of the journal that were damaged. What was written after them was taken over all the same.
    pub mended_pages: usize,
    /// Where a file is kept that was damaged as a whole; what could be read of it was taken over.
    pub damaged_file: Option<PathBuf>,
}

/// The records as they are now.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// In the order in which they were accepted.
    pub(super) unfinished: Vec<Job>,
    pub(super) ended: Ended,
    /// That are to be sent.
    pub(super) webhooks: Vec<OutboxEntry>,
    pub(super) recovery: Recovery,
}

/// Looks at every row.
pub(super) fn recover(db: &mut Connection, now: SystemTime) -> Result<Recovered, TableError> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let seen = Seen::in_rows(&transaction)?;
    let mut recovery = Recovery {
        damaged: seen.damaged.len(),
        ..Recovery::default()
    };
    for (number, why) in &seen.damaged {
        set_aside(&transaction, *number, why, now)?;
    }
    for (number, head) in &seen.odd {
        if !mend(&transaction, *number, head)? {
            recovery.damaged += 1;
            set_aside(&transaction, *number, "another row has its id", now)?;
        }
    }
    let mut unfinished = seen.unfinished;
    for job in unfinished.iter_mut().filter(|job| job.state == JobState::Running) {
        let attempt = job.attempt;
        if (Transition::Crash { attempt }).apply(job, now).is_ok() {
            tables::update(&transaction, job, &mut Ended::default())?;
            recovery.crashed += 1;
        }
    }
    recovery.unfinished = unfinished.len();
    let ended = tables::count_ended(&transaction)?;
    let pending = OutboxFilter {
        states: vec![OutboxState::Pending],
        ..OutboxFilter::default()
    };
    let webhooks = outbox_table::list(&transaction, &pending)?;
    transaction.commit()?;
    Ok(Recovered {
        unfinished,
        ended,
        webhooks,
        recovery,
    })
}

#[derive(Default)]
struct Seen {
    unfinished: Vec<Job>,
    /// Their numbers, and what is wrong.
    damaged: Vec<(i64, String)>,
    /// Rows whose record is whole, and whose columns say something else.
    odd: Vec<(i64, Head)>,
}

impl Seen {
    fn in_rows(db: &Connection) -> Result<Self, TableError> {
        let mut seen = Self::default();
        let sql = format!("SELECT {} FROM jobs ORDER BY number", Found::COLUMNS);
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            seen.look_at(Found::of(row)?);
        }
        Ok(seen)
    }

    fn look_at(&mut self, found: Found) {
        let head = record::head(&found.record, &found.checksum);
        let head = match head {
            Ok(head) => head,
            Err(damage) => return self.damaged.push((found.number, damage.to_string())),
        };
        if !head.state.is_final() {
            match record::job(&found.record, &found.checksum) {
                Ok(job) => self.unfinished.push(job),
                Err(damage) => return self.damaged.push((found.number, damage.to_string())),
            }
        }
        let agrees = found.id == head.id.as_uuid().as_bytes()
            && found.owner == head.owner.as_str()
            && found.state == state_name(head.state)
            && found.ended.is_some() == head.state.is_final()
            && found.key.as_deref() == head.idempotency.as_ref().map(|request| request.key.as_bytes())
            && found.dialect == head.dialect.name.as_bytes()
            && found.dialect_number == head.dialect.number.map(u64::cast_signed);
        if !agrees {
            self.odd.push((found.number, head));
        }
    }
}

/// Makes the columns of a row as its record says. False where that cannot be.
fn mend(db: &Connection, number: i64, head: &Head) -> Result<bool, TableError> {
    let mended = db.execute(
        "UPDATE OR IGNORE jobs SET id = ?2, owner = ?3, state = ?4, finished_at = ?5, key = ?7, dialect = ?8,
            dialect_number = ?9,
            ended = CASE WHEN ?6 THEN ifnull(ended, (SELECT ifnull(max(ended), 0) + 1 FROM jobs)) END
         WHERE number = ?1",
        params![
            number,
            head.id.as_uuid().as_bytes(),
            head.owner.as_str(),
            state_name(head.state),
            head.finished_at.map(micros),
            head.state.is_final(),
            head.idempotency.as_ref().map(|request| &request.key),
            head.dialect.name,
            head.dialect.number.map(u64::cast_signed),
        ],
    )?;
    Ok(mended == 1)
}

fn set_aside(db: &Connection, number: i64, why: &str, now: SystemTime) -> Result<(), TableError> {
    db.execute(
        "INSERT OR REPLACE INTO damaged (number, id, found_at, why, record, checksum)
         SELECT number, CAST(id AS BLOB), ?2, ?3, CAST(record AS BLOB), CAST(checksum AS BLOB) FROM jobs WHERE number = ?1",
        params![number, micros(now), why],
    )?;
    db.execute("DELETE FROM jobs WHERE number = ?1", [number])?;
    Ok(())
}

/// Takes a row over into another file, or sets it aside there.
pub(super) fn take_over(db: &Connection, found: &Found, now: SystemTime) -> Result<(), TableError> {
    let damage = match record::job(&found.record, &found.checksum) {
        Ok(job) => {
            let record = Record::of(&job).map_err(|source| TableError::Unwritable { id: job.id, source })?;
            db.execute(
                "INSERT INTO jobs (number, id, owner, state, finished_at, ended, bytes, record, checksum, key, dialect,
                    dialect_number)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
                params![
                    found.number,
                    job.id.as_uuid().as_bytes(),
                    job.owner.as_str(),
                    state_name(job.state),
                    job.finished_at.map(micros),
                    job.state.is_final().then(|| found.ended.unwrap_or(found.number)),
                    tables::signed(record.bytes()),
record.text,
                    record.checksum,
                    tables::key_of(&job),
                    job.dialect.name,
                    job.dialect.number.map(u64::cast_signed),
                ],
            )?;
            if let Some(webhook) = OutboxEntry::of(&job, now)
                && tables::is_known(db, job.id)?
            {
                // Unless the old file can say how far it is, it is sent again.
                outbox_table::write(db, &webhook)?;
            }
            return Ok(());
        }
        Err(damage) => damage,
    };
    db.execute(
        "INSERT INTO damaged (number, id, found_at, why, record, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
        params![
            found.number,
            found.id,
            micros(now),
            damage.to_string(),
            found.record,
            found.checksum
        ],
    )?;
    Ok(())
}
