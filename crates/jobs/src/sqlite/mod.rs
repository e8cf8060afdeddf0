//! Job records and their webhooks in one SQLite file, for one process; the queue is in its memory and is filled again when the
//! file is opened.
//!
//! What a call has returned survives the process and the power. Statements never run on an async thread: one thread writes,
//! and reads run where blocking is allowed.

mod journal;
mod mail;
mod memory;
mod outbox_table;
mod rebuild;
mod record;
mod recovery;
mod schema;
mod tables;
mod webhook_writes;
mod writer;
mod writes;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Clock, Job, JobId, JobState, WebhookId};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use self::memory::Memory;
use self::record::Record;
pub use self::recovery::Recovery;
use self::tables::TableError;
use self::webhook_writes::{GiveUp, Replay, Settle};
use self::writer::{Write, Writer, gone};
use self::writes::{Answer, Change, Expire, Insert, Remove, Step};
use crate::{
    Inserted, JobCounts, JobFilter, JobLimits, JobPlace, JobQueue, JobStore, JobsError, KEY_LIFE, Outbox,
    OutboxEntry, OutboxFilter, QueueEntry, SendingTurn, Settlement, Transition, key_stands,
};

/// The records and the outbox in one file, and the queue beside it. Clones share them; with the last one the file is closed.
#[derive(Clone, Debug)]
pub struct SqliteJobs {
    file: Arc<File>,
}

#[derive(Debug)]
struct File {
    limits: JobLimits,
    memory: Arc<Memory>,
    writer: Writer,
    reader: Mutex<Connection>,
    /// Whose turn it is to read. Whoever waited for the connection itself would hold a thread of those that may block, and
    /// nothing else would get one.
    reading: Arc<Semaphore>,
}

impl SqliteJobs {
    /// Opens the file, which no other process may have open, and makes it where it is missing. Jobs that have not ended
    /// wait again, in the order in which they were accepted. Blocks; call it while the server is put together.
    ///
    /// # Errors
    /// [`JobsError::NewerSchema`]: the file was written by a later version, and is as it was. [`JobsError::Backend`].
    pub fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        limits: JobLimits,
    ) -> Result<(Self, Recovery), JobsError> {
        let now = clock.wall();
        let mut damaged_file = rebuild::finish(path)?;
        let mut journal = path.as_os_str().to_owned();
        journal.push("-wal");
        let mended_pages = journal::mend(Path::new(&journal))?;
        let opened = match schema::open(path) {
            Ok(db) if schema::is_damaged(&db) => None,
            Ok(db) => Some(db),
            Err(error) if schema::is_damage_of(&error) => None,
            Err(error) => return Err(error),
        };
        let mut db = match opened {
            Some(db) => db,
            None => {
                damaged_file = Some(rebuild::rebuild(path, now)?);
                schema::open(path)?
            }
        };
        let recovered = recovery::recover(&mut db, now)?;
        let recovery = Recovery {
            mended_pages,
            damaged_file,
            ..recovered.recovery
        };
        let memory = Arc::new(Memory::new(clock, limits.unfinished));
        for job in recovered.unfinished {
            if job.state != JobState::Fetching {
                let rest = job.not_before.and_then(|at| at.duration_since(now).ok());
                memory
                    .queue
                    .restore(QueueEntry::of(&job), rest.unwrap_or_default());
            }
            let place = memory.places.take(&job.owner);
            memory.add(Arc::new(job), place);
        }
        for webhook in recovered.webhooks {
            memory.mail.put(webhook);
        }
        let reader = schema::open_reader(path).map_err(TableError::from)?;
        let writer = Writer::start(db, Arc::clone(&memory), recovered.ended);
        let file = File {
            limits,
            memory,
            writer: writer.map_err(|source| JobsError::Backend {
                what: "start the thread that writes the jobs",
                source: source.into(),
            })?,
            reader: Mutex::new(reader),
            reading: Arc::new(Semaphore::new(1)),
        };
        Ok((Self { file: Arc::new(file) }, recovery))
    }

    /// Who runs next.
    #[must_use]
    pub fn queue(&self) -> Arc<dyn JobQueue> {
        Arc::clone(&self.file.memory.queue) as Arc<_>
    }

    /// Takes over a copy of a job of these records that another machine has brought further, and returns the job as it is
    /// then; a copy that is not later changes nothing. An end that is to be told by webhook is in the outbox in the same
    /// step.
    ///
    /// # Errors
    /// [`JobsError::NotFound`]: these records do not have the job. [`JobsError::Backend`].
    pub async fn adopt(&self, copy: Job) -> Result<Job, JobsError> {
        let (id, limits) = (copy.id, self.file.limits);
        self.write("take a job over from the cluster", |answer| {
            Box::new(Change::new(id, Step::To(Box::new(copy)), limits, answer))
        })
        .await
    }

    async fn write<T>(
        &self,
        what: &'static str,
        write: impl FnOnce(Answer<T>) -> Box<dyn Write>,
    ) -> Result<T, JobsError> {
        let (answer, answered) = oneshot::channel();
        self.file.writer.send(write(answer))?;
        answered.await.map_err(|_| gone(what))?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, JobsError> {
        let file = Arc::clone(&self.file);
        let failed = |source| JobsError::Backend {
            what: "read the jobs",
            source,
        };
        let turn = Arc::clone(&file.reading).acquire_owned().await;
        let turn = turn.map_err(|closed| failed(closed.into()))?;
        let read = tokio::task::spawn_blocking(move || {
            // Until the statement has ended, also when nobody waits for its answer any more.
            let _turn = turn;
            let reader = file.reader.lock().unwrap_or_else(PoisonError::into_inner);
            read(&reader)
        });
        let result = read.await.map_err(|panic| failed(panic.into()))?;
        Ok(result?)
    }
}

#[async_trait]
impl JobStore for SqliteJobs {
    fn keeps_jobs(&self) -> bool {
        true
    }

    fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError> {
        self.file.memory.places.reserve_within(owner, most)
    }

    async fn insert(&self, job: Job, place: JobPlace) -> Result<Inserted, JobsError> {
        let what = "store the job";
        let record = Record::of(&job).map_err(|source| JobsError::Backend {
            what,
            source: source.into(),
        })?;
        self.write(what, |answer| Box::new(Insert::new(job, record, place, answer)))
            .await
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        match self.file.memory.get(id) {
            Some(job) => Ok(Some(Arc::unwrap_or_clone(job))),
            None => self.read(move |db| tables::find(db, id)).await,
        }
    }

    async fn find_by_number(&self, dialect: &str, number: u64) -> Result<Option<Job>, JobsError> {
        let dialect = dialect.to_owned();
        self.read(move |db| tables::find_by_number(db, &dialect, number))
            .await
    }

    async fn find_by_key(&self, owner: &ApiKeyId, key: &str) -> Result<Option<Job>, JobsError> {
        let now = self.file.memory.ages.now(KEY_LIFE);
        let (owner, key) = (owner.clone(), key.to_owned());
        let latest = self.read(move |db| tables::find_by_key(db, &owner, &key)).await?;
        Ok(latest.filter(|job| key_stands(job, now)))
    }

    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let limits = self.file.limits;
        self.write("change the job", |answer| {
            Box::new(Change::new(id, Step::By(transition), limits, answer))
        })
        .await
    }

    async fn wait_until_ended(&self, id: JobId) -> Result<Job, JobsError> {
        loop {
            if let Some(mut end) = self.file.memory.end_of(id) {
                // An error means that the record is gone without an end, which only a dropped store can bring about.
                let ended = end.wait_for(Option::is_some).await;
                let ended = ended.map_err(|_| JobsError::NotFound { id })?;
                return ended.as_deref().cloned().ok_or(JobsError::NotFound { id });
            }
            match self.get(id).await? {
                Some(job) if job.state.is_final() => return Ok(job),
                // It was stored in between.
                Some(_) => tokio::task::yield_now().await,
                None => return Err(JobsError::NotFound { id }),
            }
        }
    }

    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError> {
        let of_memory = !filter.states.is_empty() && !filter.states.iter().any(|state| state.is_final());
        if of_memory {
            return Ok(self.file.memory.list(filter));
        }
        let filter = filter.clone();
        self.read(move |db| tables::list(db, &filter)).await
    }

    async fn counts(&self) -> Result<JobCounts, JobsError> {
        if !self.file.writer.is_alive() {
            return Err(gone("count the jobs"));
        }
        Ok(self.file.memory.counts())
    }

    async fn remove(&self, id: JobId) -> Result<bool, JobsError> {
        self.write("forget the job", |answer| Box::new(Remove::new(id, answer)))
            .await
    }

    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError> {
        self.write("forget old jobs", |answer| {
            Box::new(Expire::new(finished_before, answer))
        })
        .await
    }
}

#[async_trait]
impl Outbox for SqliteJobs {
    async fn take(&self, lease: Duration, turn: &SendingTurn) -> Result<OutboxEntry, JobsError> {
        Ok(self.file.memory.mail.take(lease, turn).await)
    }

    async fn settle(
        &self,
        id: WebhookId,
        sending: u32,
        settlement: Settlement,
    ) -> Result<OutboxEntry, JobsError> {
        self.write("settle the webhook", |answer| {
            Box::new(Settle::new(id, sending, settlement, answer))
        })
        .await
    }

    async fn give_up(&self, round_began_before: SystemTime, problem: &str) -> Result<usize, JobsError> {
        self.write("give old webhooks up", |answer| {
            Box::new(GiveUp::new(round_began_before, problem.to_owned(), answer))
        })
        .await
    }

    async fn replay(&self, id: WebhookId) -> Result<OutboxEntry, JobsError> {
        self.write("replay the webhook", |answer| Box::new(Replay::new(id, answer)))
            .await
    }

    async fn webhooks(&self, filter: &OutboxFilter) -> Result<Vec<OutboxEntry>, JobsError> {
        let filter = filter.clone();
        let mut webhooks = self.read(move |db| outbox_table::list(db, &filter)).await?;
        for webhook in &mut webhooks {
            // Of one that is being sent, memory knows more.
            if let Some(pending) = self.file.memory.mail.get(webhook.id) {
                *webhook = pending;
            }
        }
        Ok(webhooks)
    }
}

#[cfg(test)]
mod tests;
