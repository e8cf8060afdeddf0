//! Job records, queue and outbox in memory: for a server that keeps nothing over a restart, and for tests.
//!
//! One lock, never held across an await. Waiting is by notification: an ending job wakes those who wait for it, and who
//! sends webhooks.

mod outbox;
mod records;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Clock, Job, JobId, WebhookId};
use tokio::sync::{Notify, watch};

use crate::local_queue::LocalQueue;
use crate::sending_leases::Leases;
use crate::{AgeClock, Claim, JobPlace, JobQueue, JobsError, OutboxEntry, Places, QueueEntry};

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Jobs that wait or run; one more is refused.
    pub unfinished: usize,
    /// Ended jobs that are remembered; the one that ended first is forgotten for another.
    pub finished: usize,
    /// The bytes of their records: a job with long prompts takes hundreds of times as many as one with short ones.
    pub finished_bytes: u64,
}

/// All three traits over one table in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryJobs {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    clock: Arc<dyn Clock>,
    /// How old keys are.
    ages: AgeClock,
    limits: MemoryLimits,
    places: Places,
    state: Mutex<State>,
    queue: LocalQueue,
    /// Wakes who waits in `take` for a webhook.
    mail: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Ids sort by the time of their making.
    jobs: BTreeMap<JobId, Record>,
    /// Jobs by their dialect and number.
    numbers: HashMap<(String, u64), JobId>,
    /// The latest job of each owner's key. Whether the key still stands for it is asked of the job.
    keys: HashMap<(ApiKeyId, String), JobId>,
    outbox: BTreeMap<WebhookId, OutboxEntry>,
    leases: Leases,
    unfinished: usize,
    running: usize,
    /// Ended jobs in the order of their ends, with the bytes of their records.
    finished: VecDeque<(JobId, u64)>,
    finished_bytes: u64,
}

#[derive(Debug)]
struct Record {
    job: Arc<Job>,
    /// Held until the job has ended.
    place: Option<JobPlace>,
    /// Shares the ended job, so that who waits gets it even if it is forgotten at once.
    ended: watch::Sender<Option<Arc<Job>>>,
}

impl MemoryJobs {
    /// An empty table.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: MemoryLimits) -> Self {
        Self {
            table: Arc::new(Table {
                queue: LocalQueue::new(Arc::clone(&clock)),
                ages: AgeClock::new(Arc::clone(&clock)),
                clock,
                limits,
                places: Places::new(limits.unfinished),
                state: Mutex::default(),
                mail: Notify::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.table.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl JobQueue for MemoryJobs {
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        self.table.queue.push(entry).await
    }

    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        self.table.queue.claim(lease, except).await
    }

    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError> {
        self.table.queue.heartbeat(claim, lease).await
    }

    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError> {
        self.table.queue.release(claim, delay).await
    }

    async fn complete(&self, claim: Claim) -> Result<(), JobsError> {
        self.table.queue.complete(claim).await
    }

    async fn forget(&self, id: JobId) -> Result<(), JobsError> {
        self.table.queue.forget(id).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
