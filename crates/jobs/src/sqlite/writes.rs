//! The writes of a [`crate::JobStore`]: what each does to the rows, and whom it tells.

use std::sync::Arc;
use std::time::SystemTime;

use pentimento_types::{Job, JobId, WebhookId};
use tokio::sync::oneshot::Sender;

use super::memory::Memory;
use super::outbox_table;
use super::record::Record;
use super::tables::{self, TableError};
use super::writer::{Tables, Write};
use crate::{
    Inserted, JobLimits, JobPlace, JobsError, KEY_LIFE, OutboxEntry, Transition, is_later, key_stands,
    known_request,
};

/// Where the result of a write goes. Who asked may have gone away.
pub(super) type Answer<T> = Sender<Result<T, JobsError>>;

pub(super) struct Insert {
    job: Arc<Job>,
    record: Record,
    place: JobPlace,
    inserted: Result<Inserted, JobsError>,
    answer: Answer<Inserted>,
}

impl Insert {
    pub(super) fn new(job: Job, record: Record, place: JobPlace, answer: Answer<Inserted>) -> Self {
        Self {
            job: Arc::new(job),
            record,
            place,
            inserted: Ok(Inserted::New),
            answer,
        }
    }

    /// What becomes of the job; None where nothing stands against it.
    fn known(&self, tables: &Tables<'_>) -> Result<Option<Result<Inserted, JobsError>>, TableError> {
        let job = &self.job;
        if tables::is_known(tables.db, job.id)? {
            return Ok(Some(Err(JobsError::Duplicate { id: job.id })));
        }
        if let Some(request) = &job.idempotency {
            let now = tables.memory.ages.now(KEY_LIFE);
            let first = tables::find_by_key(tables.db, &job.owner, &request.key)?;
            if let Some(first) = first.filter(|first| key_stands(first, now)) {
                return Ok(Some(known_request(&first, request).map(Inserted::Known)));
            }
        }
        if let Some(number) = job.dialect.number
            && tables::is_number_taken(tables.db, &job.dialect.name, number)?
        {
            return Ok(Some(Err(JobsError::NumberTaken)));
        }
        Ok(None)
    }
}

impl Write for Insert {
    fn what(&self) -> &'static str {
        "store the job"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        self.inserted = match self.known(tables)? {
            Some(known) => known,
            None => {
                tables::insert(tables.db, &self.job, &self.record)?;
                Ok(Inserted::New)
            }
        };
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        let Self {
            job,
            place,
            inserted,
            answer,
            ..
        } = *self;
        let result = written.and(inserted);
        if matches!(result, Ok(Inserted::New)) {
            memory.add(job, place);
        } else {
            // Free before the answer, so that who is told can use it.
            drop(place);
        }
        let _ = answer.send(result);
    }
}

/// What a job becomes.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By the state machine.
    By(Transition),
    /// A copy of it that another machine has brought further; an older one changes nothing.
    To(Box<Job>),
}

pub(super) struct Change {
    id: JobId,
    step: Step,
    limits: JobLimits,
    changed: Result<Box<Job>, JobsError>,
    /// That tells of its end.
    webhook: Option<OutboxEntry>,
    /// Ended jobs for which there is no room any more.
    forgotten: Vec<JobId>,
    answer: Answer<Job>,
}

impl Change {
    pub(super) fn new(id: JobId, step: Step, limits: JobLimits, answer: Answer<Job>) -> Self {
        Self {
            id,
            step,
            limits,
            changed: Err(JobsError::NotFound { id }),
            webhook: None,
            forgotten: Vec::new(),
            answer,
        }
    }
}

impl Write for Change {
    fn what(&self) -> &'static str {
        "change the job"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        let Some(mut job) = tables::find(tables.db, self.id)? else {
            self.changed = Err(JobsError::NotFound { id: self.id });
            return Ok(());
        };
        match self.step.clone() {
            Step::By(transition) => {
                if let Err(refused) = transition.apply(&mut job, tables.now) {
                    self.changed = Err(refused.into());
                    return Ok(());
                }
            }
            Step::To(copy) if is_later(&copy, &job) => job = *copy,
            Step::To(_) => {
                self.changed = Ok(Box::new(job));
                return Ok(());
            }
        }
        tables::update(tables.db, &job, &mut tables.ended)?;
        self.webhook = OutboxEntry::of(&job, tables.now);
        if let Some(webhook) = &self.webhook {
            outbox_table::write(tables.db, webhook)?;
        }
        self.forgotten = tables::forget_oldest(tables.db, &self.limits, &mut tables.ended)?;
        self.changed = Ok(Box::new(job));
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        let Self {
            changed,
            webhook,
            forgotten,
            answer,
            ..
        } = *self;
        let result = written.and(changed).map(|job| *job);
        if let Ok(job) = &result {
            memory.changed(job);
            if let Some(webhook) = webhook {
                memory.mail.put(webhook);
            }
            for id in forgotten {
                memory.mail.remove(WebhookId::of(id));
            }
        }
        let _ = answer.send(result);
    }
}

pub(super) struct Expire {
    finished_before: SystemTime,
    expired: Vec<JobId>,
    answer: Answer<Vec<JobId>>,
}

impl Expire {
    pub(super) const fn new(finished_before: SystemTime, answer: Answer<Vec<JobId>>) -> Self {
        Self {
            finished_before,
            expired: Vec::new(),
            answer,
        }
    }
}

impl Write for Expire {
    fn what(&self) -> &'static str {
        "forget old jobs"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        self.expired = tables::expire(tables.db, self.finished_before, &mut tables.ended)?;
        Ok(())
    }

    fn publish(self: Box<Self>, _: &Memory, written: Result<(), JobsError>) {
        let Self { expired, answer, .. } = *self;
        let _ = answer.send(written.map(|()| expired));
    }
}

pub(super) struct Remove {
    id: JobId,
    is_removed: bool,
    answer: Answer<bool>,
}

impl Remove {
    pub(super) const fn new(id: JobId, answer: Answer<bool>) -> Self {
        Self {
            id,
            is_removed: false,
            answer,
        }
    }
}

impl Write for Remove {
    fn what(&self) -> &'static str {
        "forget the job"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        self.is_removed = tables::remove(tables.db, self.id, &mut tables.ended)?;
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        if written.is_ok() && self.is_removed {
            memory.mail.remove(WebhookId::of(self.id));
        }
        let Self {
            is_removed, answer, ..
        } = *self;
        let _ = answer.send(written.map(|()| is_removed));
    }
}
