//! The statements of the outbox. A row says how far a webhook is; the rest of it is made of the job's record.

use std::time::{Duration, SystemTime};

use pentimento_types::{JobId, WebhookId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::record;
use super::tables::{TableError, bytes, job_id, micros, signed};
use crate::{OutboxEntry, OutboxFilter, OutboxState};

const SELECT: &str = "SELECT jobs.id, jobs.record, jobs.checksum, outbox.state, outbox.due, outbox.sendings, \
                      outbox.in_round, outbox.round_began, outbox.problem \
                      FROM outbox JOIN jobs ON jobs.id = outbox.job";

/// Writes a webhook down as it is now.
pub(super) fn write(db: &Connection, webhook: &OutboxEntry) -> Result<(), TableError> {
    let mut statement = db.prepare_cached(
        "INSERT INTO outbox (job, state, due, sendings, in_round, round_began, problem)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (job) DO UPDATE SET state = ?2, due = ?3, sendings = ?4, in_round = ?5, round_began = ?6, problem = ?7",
    )?;
    statement.execute(params![
        webhook.job().as_uuid().as_bytes(),
        state_name(webhook.state),
        micros(webhook.due),
        webhook.sendings,
        webhook.in_round,
        micros(webhook.round_began),
        webhook.problem,
    ])?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: WebhookId) -> Result<Option<OutboxEntry>, TableError> {
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE outbox.job = ?1"))?;
    let found = statement
        .query_row([id.job().as_uuid().as_bytes()], |row| Ok(webhook(row)))
        .optional()?;
    found.transpose().map(Option::flatten)
}

/// By ascending id. Those of damaged jobs are left out.
pub(super) fn list(db: &Connection, filter: &OutboxFilter) -> Result<Vec<OutboxEntry>, TableError> {
    let mut sql = format!("{SELECT} WHERE true");
    let mut values: Vec<Value> = Vec::new();
    if !filter.states.is_empty() {
        let marks = vec!["?"; filter.states.len()].join(", ");
        sql.push_str(&format!(" AND outbox.state IN ({marks})"));
        let names = filter.states.iter().map(|state| state_name(*state).to_owned());
        values.extend(names.map(Value::Text));
    }
    if let Some(owner) = &filter.owner {
        sql.push_str(" AND jobs.owner = ?");
        values.push(Value::Text(owner.as_str().to_owned()));
    }
    let id = |job: JobId| Value::Blob(job.as_uuid().as_bytes().to_vec());
    if let Some(job) = filter.job {
        sql.push_str(" AND outbox.job = ?");
        values.push(id(job));
    }
    if let Some(after) = filter.after {
        sql.push_str(" AND outbox.job > ?");
        values.push(id(after.job()));
    }
    sql.push_str(" ORDER BY outbox.job");
    if filter.limit > 0 {
        sql.push_str(" LIMIT ?");
        values.push(Value::Integer(signed(filter.limit as u64)));
    }
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut webhooks = Vec::new();
    while let Some(row) = rows.next()? {
        match webhook(row) {
            Ok(found) => webhooks.extend(found),
            Err(TableError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(webhooks)
}

/// Takes the webhooks of another file over, for jobs that are here.
pub(super) fn copy(old: &Connection, new: &Connection) -> Result<(), TableError> {
    let Ok(mut statement) =
        old.prepare("SELECT job, state, due, sendings, in_round, round_began, problem FROM outbox")
    else {
        return Ok(());
    };
    let Ok(mut rows) = statement.query([]) else {
        return Ok(());
    };
    // Whatever cannot be read or written is sent again, which is better than never.
    while let Ok(Some(row)) = rows.next() {
        let values: Result<Vec<Value>, _> = (0..7).map(|column| row.get(column)).collect();
        if let Ok(values) = values {
            let _ = new.execute(
                "INSERT OR REPLACE INTO outbox (job, state, due, sendings, in_round, round_began, problem)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1)",
                params_from_iter(values),
            );
        }
    }
    Ok(())
}

/// None where the job's record knows nothing of a webhook.
fn webhook(row: &Row<'_>) -> Result<Option<OutboxEntry>, TableError> {
    let id = job_id(row, 0)?;
    let job = record::job(&bytes(row, 1)?, &bytes(row, 2)?);
    let job = job.map_err(|source| TableError::Damaged { id, source })?;
    let Some(webhook) = OutboxEntry::of(&job, time(row, 7)?) else {
        return Ok(None);
    };
    let problem = String::from_utf8_lossy(&bytes(row, 8)?).into_owned();
    Ok(Some(OutboxEntry {
        state: state_of(&bytes(row, 3)?),
        due: time(row, 4)?,
        sendings: number(row, 5)?,
        in_round: number(row, 6)?,
        problem: Some(problem).filter(|problem| !problem.is_empty()),
        ..webhook
    }))
}

/// A damaged number only spoils a schedule.
fn integer(row: &Row<'_>, column: usize) -> Result<i64, TableError> {
    Ok(row.get_ref(column)?.as_i64().unwrap_or(0))
}

fn number(row: &Row<'_>, column: usize) -> Result<u32, TableError> {
    Ok(u32::try_from(integer(row, column)?).unwrap_or(0))
}

fn time(row: &Row<'_>, column: usize) -> Result<SystemTime, TableError> {
    let since = Duration::from_micros(integer(row, column)?.unsigned_abs());
    Ok(SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH))
}

const fn state_name(state: OutboxState) -> &'static str {
    match state {
        OutboxState::Pending => "pending",
        OutboxState::Delivered => "delivered",
        OutboxState::Dead => "dead",
    }
}

/// A name that nobody wrote is sent again: a receiver knows a message by its id.
fn state_of(name: &[u8]) -> OutboxState {
    match name {
        b"delivered" => OutboxState::Delivered,
        b"dead" => OutboxState::Dead,
        _ => OutboxState::Pending,
    }
}
