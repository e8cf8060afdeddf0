//! The writes of a [`crate::JobStore`]: what each does to the rows, and whom it tells.

use std::sync::Arc;
use std::time::SystemTime;

use pentimento_types::{Job, JobId};
use tokio::sync::oneshot::Sender;

use super::memory::Memory;
use super::record::Record;
use super::tables::{self, TableError};
use super::writer::{Tables, Write};
use crate::{JobPlace, JobsError, MemoryLimits, Transition};

/// Where the result of a write goes. Who asked may have gone away.
pub(super) type Answer<T> = Sender<Result<T, JobsError>>;

pub(super) struct Insert {
    job: Arc<Job>,
    record: Record,
    place: JobPlace,
    is_new: bool,
    answer: Answer<()>,
}

impl Insert {
    pub(super) fn new(job: Job, record: Record, place: JobPlace, answer: Answer<()>) -> Self {
        Self {
            job: Arc::new(job),
            record,
            place,
            is_new: false,
            answer,
        }
    }
}

impl Write for Insert {
    fn what(&self) -> &'static str {
        "store the job"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        self.is_new = tables::insert(tables.db, &self.job, &self.record)?;
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        let Self { job, place, .. } = *self;
        let result = match written {
            Ok(()) if self.is_new => {
                memory.add(job, place);
                Ok(())
            }
            Ok(()) => Err(JobsError::Duplicate { id: job.id }),
            Err(error) => Err(error),
        };
        let _ = self.answer.send(result);
    }
}

pub(super) struct Change {
    id: JobId,
    transition: Transition,
    limits: MemoryLimits,
    changed: Result<Box<Job>, JobsError>,
    answer: Answer<Job>,
}

impl Change {
    pub(super) fn new(id: JobId, transition: Transition, limits: MemoryLimits, answer: Answer<Job>) -> Self {
        Self {
            id,
            transition,
            limits,
            changed: Err(JobsError::NotFound { id }),
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
        if let Err(refused) = self.transition.clone().apply(&mut job, tables.now) {
            self.changed = Err(refused.into());
            return Ok(());
        }
        tables::update(tables.db, &job, &mut tables.ended)?;
        tables::forget_oldest(tables.db, &self.limits, &mut tables.ended)?;
        self.changed = Ok(Box::new(job));
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        let result = written.and(self.changed).map(|job| *job);
        if let Ok(job) = &result {
            memory.changed(job);
        }
        let _ = self.answer.send(result);
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
