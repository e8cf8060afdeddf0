//! Job records, queue and outbox in memory: for a server that keeps nothing over a restart, and for tests.
//!
//! One lock, never held across an await. Waiting is by notification: an ending job wakes those who wait for it, and who
//! sends webhooks; a push, or a lease or a rest that is over, wakes the workers.

mod outbox;
mod records;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Clock, Job, JobId, WebhookId};
use tokio::sync::{Notify, watch};

use crate::fair_line::FairLine;
use crate::{Claim, JobPlace, JobQueue, JobsError, OutboxEntry, Places, QueueEntry};

/// Bounds of [`MemoryJobs`].
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
    limits: MemoryLimits,
    places: Places,
    state: Mutex<State>,
    /// Wakes workers that wait in `claim`.
    work: Notify,
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
    unfinished: usize,
    running: usize,
    /// Ended jobs in the order of their ends, with the bytes of their records.
    finished: VecDeque<(JobId, u64)>,
    finished_bytes: u64,
    ready: FairLine,
    /// Jobs that rest before their next attempt, and when they are ready.
    resting: BTreeMap<JobId, (Instant, QueueEntry)>,
    leases: HashMap<JobId, Lease>,
    last_token: u64,
}

#[derive(Debug)]
struct Record {
    job: Arc<Job>,
    /// Held until the job has ended.
    place: Option<JobPlace>,
    /// Shares the ended job, so that who waits gets it even if it is forgotten at once.
    ended: watch::Sender<Option<Arc<Job>>>,
}

#[derive(Debug)]
struct Lease {
    token: u64,
    until: Instant,
    entry: QueueEntry,
}

impl MemoryJobs {
    /// An empty table.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: MemoryLimits) -> Self {
        Self {
            table: Arc::new(Table {
                clock,
                limits,
                places: Places::new(limits.unfinished),
                state: Mutex::default(),
                work: Notify::new(),
                mail: Notify::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.table.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Jobs whose lease or rest is over go ahead of their owner's others.
    fn take_back(&mut self, now: Instant) {
        let silent = self.leases.extract_if(|_, lease| lease.until <= now);
        let mut back: Vec<QueueEntry> = silent.map(|(_, lease)| lease.entry).collect();
        let rested = self.resting.extract_if(.., |_, (until, _)| *until <= now);
        back.extend(rested.map(|(_, (_, entry))| entry));
        for entry in back {
            self.ready.put_back(entry);
        }
    }

    /// When the next lease or rest ends.
    fn next_change(&self) -> Option<Instant> {
        let leases = self.leases.values().map(|lease| lease.until);
        leases.chain(self.resting.values().map(|(until, _)| *until)).min()
    }

    /// The lease of a claim that still holds.
    fn held(&mut self, claim: &Claim, now: Instant) -> Result<&mut Lease, JobsError> {
        let id = claim.job();
        let lease = self.leases.get_mut(&id);
        lease
            .filter(|lease| lease.token == claim.token() && lease.until > now)
            .ok_or(JobsError::ClaimLost { id })
    }

    fn end_lease(&mut self, claim: &Claim, now: Instant) -> Result<QueueEntry, JobsError> {
        self.held(claim, now)?;
        let lease = self.leases.remove(&claim.job());
        let lease = lease.ok_or(JobsError::ClaimLost { id: claim.job() })?;
        Ok(lease.entry)
    }
}

#[async_trait]
impl JobQueue for MemoryJobs {
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        let id = entry.id;
        let mut state = self.lock();
        let known =
            state.leases.contains_key(&id) || state.ready.contains(id) || state.resting.contains_key(&id);
        if !known {
            state.ready.push(entry);
            // Not one of them: it may be waiting for jobs of other owners.
            self.table.work.notify_waiters();
        }
        Ok(())
    }

    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        loop {
            let mut work = std::pin::pin!(self.table.work.notified());
            // Enlisted before the look, so that a push between look and wait is not missed.
            work.as_mut().enable();
            let next_change = {
                let now = self.table.clock.now();
                let mut state = self.lock();
                state.take_back(now);
                if let Some(entry) = state.ready.pop(except) {
                    state.last_token += 1;
                    let token = state.last_token;
                    let claim = Claim::new(entry.id, entry.owner.clone(), token);
                    let until = now + lease;
                    state.leases.insert(entry.id, Lease { token, until, entry });
                    // The other waiting workers must know when this lease ends.
                    self.table.work.notify_waiters();
                    return Ok(claim);
                }
                state.next_change()
            };
            match next_change {
                None => work.await,
                Some(until) => tokio::select! {
                    () = work => {}
                    () = self.table.clock.sleep_until(until) => {}
                },
            }
        }
    }

    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError> {
        let now = self.table.clock.now();
        self.lock().held(claim, now)?.until = now + lease;
        Ok(())
    }

    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError> {
        let now = self.table.clock.now();
        let mut state = self.lock();
        let entry = state.end_lease(&claim, now)?;
        if delay.is_zero() {
            state.ready.put_back(entry);
        } else {
            state.resting.insert(entry.id, (now + delay, entry));
        }
        // Every worker that waits must know, also when this rest ends.
        self.table.work.notify_waiters();
        Ok(())
    }

    async fn complete(&self, claim: Claim) -> Result<(), JobsError> {
        let now = self.table.clock.now();
        self.lock().end_lease(&claim, now)?;
        Ok(())
    }

    async fn forget(&self, id: JobId) -> Result<(), JobsError> {
        let mut state = self.lock();
        state.ready.remove(id);
        state.resting.remove(&id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
