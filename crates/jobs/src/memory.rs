//! Job records, queue and outbox in memory: for a server that keeps nothing over a restart, and for tests.
//!
//! One lock, never held across an await. Waiting is by notification: an ending job wakes those who wait for it, and who
//! sends webhooks.

mod outbox;
mod records;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::{ApiKeyId, Clock, Job, JobId, WebhookId};
use tokio::sync::{Notify, watch};

use crate::local_queue::LocalQueue;
use crate::sending_leases::Leases;
use crate::{AgeClock, JobLimits, JobPlace, JobQueue, OutboxEntry, Places};

/// The records and the outbox over one table in memory, and the queue beside it. Clones share them.
#[derive(Clone, Debug)]
pub struct MemoryJobs {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    clock: Arc<dyn Clock>,
    /// How old keys are.
    ages: AgeClock,
    limits: JobLimits,
    places: Places,
    state: Mutex<State>,
    queue: Arc<LocalQueue>,
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
    pub fn new(clock: Arc<dyn Clock>, limits: JobLimits) -> Self {
        Self {
            table: Arc::new(Table {
                queue: Arc::new(LocalQueue::new(Arc::clone(&clock))),
                ages: AgeClock::new(Arc::clone(&clock)),
                clock,
                limits,
                places: Places::new(limits.unfinished),
                state: Mutex::default(),
                mail: Notify::new(),
            }),
        }
    }

    /// Who runs next.
    #[must_use]
    pub fn queue(&self) -> Arc<dyn JobQueue> {
        Arc::clone(&self.table.queue) as Arc<_>
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.table.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests;
