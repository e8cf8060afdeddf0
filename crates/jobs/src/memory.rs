//! Job records and queue in memory: for a server that keeps nothing over a restart, and for tests.
//!
//! One lock, never held across an await. Waiting is by notification: an ending job wakes those who wait for it; a push, or
//! a lease or a rest that is over, wakes the workers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Clock, Job, JobId, JobState};
use tokio::sync::{Notify, watch};

use crate::fair_line::FairLine;
use crate::{
    Claim, JobCounts, JobFilter, JobPlace, JobQueue, JobStore, JobsError, Places, QueueEntry, Transition,
};

/// Bounds of [`MemoryJobs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Jobs that wait or run; one more is refused.
    pub unfinished: usize,
    /// Ended jobs that are remembered; the one that ended first is forgotten for another.
    pub finished: usize,
}

/// Both traits over one table in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryJobs {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    clock: Arc<dyn Clock>,
    /// Ended jobs that are remembered.
    finished: usize,
    places: Places,
    state: Mutex<State>,
    /// Wakes workers that wait in `claim`.
    work: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Ids sort by the time of their making.
    jobs: BTreeMap<JobId, Record>,
    unfinished: usize,
    running: usize,
    /// Ended jobs in the order of their ends.
    finished: VecDeque<JobId>,
    ready: FairLine,
    /// Jobs that rest before their next attempt, and when they are ready.
    resting: BTreeMap<JobId, (Instant, QueueEntry)>,
    leases: HashMap<JobId, Lease>,
    last_token: u64,
}

#[derive(Debug)]
struct Record {
    job: Job,
    /// Held until the job has ended.
    place: Option<JobPlace>,
    /// Holds the ended job, so that who waits gets it even if it is forgotten at once.
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
                finished: limits.finished,
                places: Places::new(limits.unfinished),
                state: Mutex::default(),
                work: Notify::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.table.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, id: JobId) -> Result<&mut Record, JobsError> {
        self.jobs.get_mut(&id).ok_or(JobsError::NotFound { id })
    }

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
impl JobStore for MemoryJobs {
    fn reserve(&self, owner: &ApiKeyId) -> Result<JobPlace, JobsError> {
        self.table.places.reserve(owner)
    }

    async fn insert(&self, job: Job, place: JobPlace) -> Result<(), JobsError> {
        let mut state = self.lock();
        if state.jobs.contains_key(&job.id) {
            return Err(JobsError::Duplicate { id: job.id });
        }
        state.unfinished += 1;
        let (ended, _) = watch::channel(None);
        let place = Some(place);
        state.jobs.insert(job.id, Record { job, place, ended });
        Ok(())
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        Ok(self.lock().jobs.get(&id).map(|record| record.job.clone()))
    }

    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let now = self.table.clock.wall();
        let kept = self.table.finished;
        let mut state = self.lock();
        let record = state.record(id)?;
        let was_running = record.job.state == JobState::Running;
        transition.apply(&mut record.job, now)?;
        let job = record.job.clone();
        if job.state.is_final() {
            record.place = None;
            record.ended.send_replace(Some(Arc::new(job.clone())));
        }
        state.running -= usize::from(was_running);
        state.running += usize::from(job.state == JobState::Running);
        if job.state.is_final() {
            state.unfinished -= 1;
            state.finished.push_back(id);
            while state.finished.len() > kept {
                let oldest = state.finished.pop_front();
                oldest.and_then(|oldest| state.jobs.remove(&oldest));
            }
        }
        Ok(job)
    }

    async fn wait_until_ended(&self, id: JobId) -> Result<Job, JobsError> {
        let mut ended = self.lock().record(id)?.ended.subscribe();
        // An error means that the record is gone without an end, which only a dropped table can bring about.
        let job = ended
            .wait_for(Option::is_some)
            .await
            .map_err(|_| JobsError::NotFound { id })?;
        job.as_deref().cloned().ok_or(JobsError::NotFound { id })
    }

    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError> {
        let limit = if filter.limit == 0 {
            usize::MAX
        } else {
            filter.limit
        };
        let state = self.lock();
        let jobs = state
            .jobs
            .values()
            .map(|record| &record.job)
            .filter(|job| filter.after.is_none_or(|after| job.id > after))
            .filter(|job| filter.states.is_empty() || filter.states.contains(&job.state))
            .filter(|job| filter.owner.as_ref().is_none_or(|owner| *owner == job.owner));
        Ok(jobs.take(limit).cloned().collect())
    }

    async fn counts(&self) -> Result<JobCounts, JobsError> {
        let state = self.lock();
        Ok(JobCounts {
            queued: state.unfinished - state.running,
            running: state.running,
            limit: self.table.places.limit(),
        })
    }

    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError> {
        let mut state = self.lock();
        let old: Vec<JobId> = state
            .jobs
            .values()
            .filter(|record| record.job.finished_at.is_some_and(|at| at < finished_before))
            .map(|record| record.job.id)
            .collect();
        for id in &old {
            state.jobs.remove(id);
        }
        let State { finished, jobs, .. } = &mut *state;
        finished.retain(|id| jobs.contains_key(id));
        Ok(old)
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
mod tests {
    use pentimento_types::ManualClock;

    use super::*;
    use crate::conformance::{self, Fixture, sample_job};

    fn memory(clock: &ManualClock, limits: MemoryLimits) -> MemoryJobs {
        MemoryJobs::new(Arc::new(clock.clone()), limits)
    }

    #[tokio::test]
    async fn passes_the_conformance_suite() {
        conformance::run_all(|unfinished| {
            let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
            let jobs = memory(
                &clock,
                MemoryLimits {
                    unfinished,
                    finished: 1000,
                },
            );
            Fixture {
                store: Arc::new(jobs.clone()),
                queue: Arc::new(jobs),
                let_pass: Arc::new(move |time| {
                    clock.advance(time);
                    Box::pin(std::future::ready(()))
                }),
            }
        })
        .await;
    }

    #[tokio::test]
    async fn the_oldest_ended_job_is_forgotten_and_its_waiter_still_gets_it() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let jobs = memory(
            &clock,
            MemoryLimits {
                unfinished: 9,
                finished: 2,
            },
        );
        let ids: Vec<JobId> = (1..=3).map(JobId::from_u128).collect();
        for id in &ids {
            let place = jobs.reserve(&ApiKeyId::anonymous()).unwrap();
            jobs.insert(sample_job(*id, clock.wall()), place).await.unwrap();
        }
        let first = ids[0];
        let other = jobs.clone();
        let waiting = tokio::spawn(async move { other.wait_until_ended(first).await });
        tokio::task::yield_now().await;
        for id in &ids {
            jobs.transition(*id, Transition::Cancel).await.unwrap();
        }
        assert!(jobs.get(first).await.unwrap().is_none());
        assert_eq!(waiting.await.unwrap().unwrap().state, JobState::Cancelled);
        assert_eq!(jobs.list(&JobFilter::default()).await.unwrap().len(), 2);
    }
}
