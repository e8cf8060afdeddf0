//! The queue of one process, for every store whose records belong to one process: entries and leases live in its memory,
//! and who opens the records fills it again.
//!
//! One lock, never held across an await. A lease that is over is not taken away at once: when the whole process was stopped
//! for a while (a laptop that slept, SIGSTOP), every lease is over at the same moment, and its worker gets a last call.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Clock, JobId};
use tokio::sync::Notify;

use crate::fair_line::FairLine;
use crate::{Claim, JobQueue, JobsError, QueueEntry};

/// What part of its lease a worker that fell silent gets to be heard again, once it was noticed.
const LAST_CALL: u32 = 4;

/// The queue of one process.
#[derive(Debug)]
pub struct LocalQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes workers that wait in `claim`.
    work: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: FairLine,
    /// Jobs that rest before their next attempt, and when they are ready.
    resting: BTreeMap<JobId, (Instant, QueueEntry)>,
    leases: HashMap<JobId, Lease>,
    last_token: u64,
}

#[derive(Debug)]
struct Lease {
    token: u64,
    until: Instant,
    /// How long the worker gets once its silence was noticed; None when that has begun.
    last_call: Option<Duration>,
    entry: QueueEntry,
}

impl LocalQueue {
    /// An empty one.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            work: Notify::new(),
        }
    }

    /// Puts a job in that was found among the records, behind the others; it rests for `delay` before that.
    pub(crate) fn restore(&self, entry: QueueEntry, delay: Duration) {
        let ready_at = self.clock.now() + delay;
        let mut state = self.lock();
        if delay.is_zero() {
            state.ready.push(entry);
        } else {
            state.resting.insert(entry.id, (ready_at, entry));
        }
    }

    /// Whether the job waits, rests or is claimed.
    #[must_use]
    pub fn contains(&self, id: JobId) -> bool {
        self.lock().contains(id)
    }

    /// Takes out everything that nobody has claimed, in the order of the turns.
    #[must_use]
    pub fn take_waiting(&self) -> Vec<QueueEntry> {
        let mut state = self.lock();
        let ready = &mut state.ready;
        let mut entries: Vec<QueueEntry> = std::iter::from_fn(|| ready.pop(&[])).collect();
        let resting = std::mem::take(&mut state.resting);
        entries.extend(resting.into_values().map(|(_, entry)| entry));
        entries
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn contains(&self, id: JobId) -> bool {
        self.leases.contains_key(&id) || self.ready.contains(id) || self.resting.contains_key(&id)
    }

    /// Jobs whose lease or rest is over go ahead of their owner's others.
    fn take_back(&mut self, now: Instant) {
        for lease in self.leases.values_mut().filter(|lease| lease.until <= now) {
            if let Some(last_call) = lease.last_call.take() {
                lease.until = now + last_call;
            }
        }
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

    /// The lease of a claim that still holds: until another worker may have the job, and not by the clock alone.
    fn held(&mut self, claim: &Claim) -> Result<&mut Lease, JobsError> {
        let id = claim.job();
        let lease = self.leases.get_mut(&id);
        lease
            .filter(|lease| lease.token == claim.token())
            .ok_or(JobsError::ClaimLost { id })
    }

    fn end_lease(&mut self, claim: &Claim) -> Result<QueueEntry, JobsError> {
        self.held(claim)?;
        let lease = self.leases.remove(&claim.job());
        let lease = lease.ok_or(JobsError::ClaimLost { id: claim.job() })?;
        Ok(lease.entry)
    }
}

#[async_trait]
impl JobQueue for LocalQueue {
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        let id = entry.id;
        let mut state = self.lock();
        if !state.contains(id) {
            state.ready.push(entry);
            // Not one of them: it may be waiting for jobs of other owners.
            self.work.notify_waiters();
        }
        Ok(())
    }

    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        loop {
            let mut work = std::pin::pin!(self.work.notified());
            // Enlisted before the look, so that a push between look and wait is not missed.
            work.as_mut().enable();
            let next_change = {
                let now = self.clock.now();
                let mut state = self.lock();
                state.take_back(now);
                if let Some(entry) = state.ready.pop(except) {
                    state.last_token += 1;
                    let token = state.last_token;
                    let claim = Claim::new(entry.id, entry.owner.clone(), token);
                    let held = Lease {
                        token,
                        until: now + lease,
                        last_call: Some(lease / LAST_CALL),
                        entry,
                    };
                    state.leases.insert(claim.job(), held);
                    // The other waiting workers must know when this lease ends.
                    self.work.notify_waiters();
                    return Ok(claim);
                }
                state.next_change()
            };
            match next_change {
                None => work.await,
                Some(until) => tokio::select! {
                    () = work => {}
                    () = self.clock.sleep_until(until) => {}
                },
            }
        }
    }

    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError> {
        let now = self.clock.now();
        let mut state = self.lock();
        let held = state.held(claim)?;
        held.until = now + lease;
        held.last_call = Some(lease / LAST_CALL);
        Ok(())
    }

    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError> {
        let now = self.clock.now();
        let mut state = self.lock();
        let entry = state.end_lease(&claim)?;
        if delay.is_zero() {
            state.ready.put_back(entry);
        } else {
            state.resting.insert(entry.id, (now + delay, entry));
        }
        // Every worker that waits must know, also when this rest ends.
        self.work.notify_waiters();
        Ok(())
    }

    async fn complete(&self, claim: Claim) -> Result<(), JobsError> {
        self.lock().end_lease(&claim)?;
        Ok(())
    }

    async fn forget(&self, id: JobId) -> Result<(), JobsError> {
        let mut state = self.lock();
        state.ready.remove(id);
        state.resting.remove(&id);
        Ok(())
    }
}
