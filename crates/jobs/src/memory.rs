//! Job records and queue in memory: for a server that keeps nothing over a restart, and for tests.
//!
//! One lock, never held across an await. Waiting is by notification: an ending job wakes those who wait for it; a push, or
//! a lease or a rest that is over, wakes the workers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
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
    /// The bytes of their records: a job with long prompts takes hundreds of times as many as one with short ones.
    pub finished_bytes: u64,
}

/// Both traits over one table in memory. Clones share it.
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
}

#[derive(Debug, Default)]
struct State {
    /// Ids sort by the time of their making.
    jobs: BTreeMap<JobId, Record>,
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

    /// Takes the ended jobs that are not in the table any more out of the account.
    fn forget_missing(&mut self) {
        let Self {
            finished,
            finished_bytes,
            jobs,
            ..
        } = self;
        finished.retain(|(id, bytes)| {
            let kept = jobs.contains_key(id);
            *finished_bytes -= if kept { 0 } else { *bytes };
            kept
        });
    }

    /// Keeps an ended job, for which the oldest ones are forgotten where there are too many of them, or too large ones.
    fn remember(&mut self, job: &Job, limits: MemoryLimits) {
        let bytes = size_of_record(job);
        self.finished.push_back((job.id, bytes));
        self.finished_bytes += bytes;
        while self.finished.len() > limits.finished || self.finished_bytes > limits.finished_bytes {
            let Some((oldest, bytes)) = self.finished.pop_front() else {
                break;
            };
            self.finished_bytes -= bytes;
            self.jobs.remove(&oldest);
        }
    }
}

/// About what a record takes: its texts, which are all that a caller can make large, and what is beside them.
fn size_of_record(job: &Job) -> u64 {
    /// Counts what is written.
    struct Counter(u64);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    const BESIDE: u64 = 1024;
    let mut counter = Counter(BESIDE);
    // A record can always be written; if not, it counts as far as it can.
    let _ = serde_json::to_writer(&mut counter, job);
    counter.0
}

#[async_trait]
impl JobStore for MemoryJobs {
    fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError> {
        self.table.places.reserve_within(owner, most)
    }

    async fn insert(&self, job: Job, place: JobPlace) -> Result<(), JobsError> {
        let mut state = self.lock();
        if state.jobs.contains_key(&job.id) {
            return Err(JobsError::Duplicate { id: job.id });
        }
        state.unfinished += 1;
        let (ended, _) = watch::channel(None);
        let (job, place) = (Arc::new(job), Some(place));
        state.jobs.insert(job.id, Record { job, place, ended });
        Ok(())
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        let found = self.lock().jobs.get(&id).map(|record| Arc::clone(&record.job));
        Ok(found.map(Arc::unwrap_or_clone))
    }

    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let now = self.table.clock.wall();
        let mut state = self.lock();
        let record = state.record(id)?;
        let was_running = record.job.state == JobState::Running;
        // Copied only while somebody else looks at it.
        transition.apply(Arc::make_mut(&mut record.job), now)?;
        let job = Arc::clone(&record.job);
        if job.state.is_final() {
            record.place = None;
            record.ended.send_replace(Some(Arc::clone(&job)));
        }
        state.running -= usize::from(was_running);
        state.running += usize::from(job.state == JobState::Running);
        if job.state.is_final() {
            state.unfinished -= 1;
            state.remember(&job, self.table.limits);
        }
        drop(state);
        Ok(Arc::unwrap_or_clone(job))
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
        let ids = match (filter.after, filter.newest_first) {
            (None, _) => (Bound::Unbounded, Bound::Unbounded),
            (Some(after), false) => (Bound::Excluded(after), Bound::Unbounded),
            (Some(after), true) => (Bound::Unbounded, Bound::Excluded(after)),
        };
        let mut records = state.jobs.range(ids);
        let in_order = std::iter::from_fn(|| {
            if filter.newest_first {
                records.next_back()
            } else {
                records.next()
            }
        });
        let jobs = in_order
            .map(|(_, record)| record.job.as_ref())
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

    async fn remove(&self, id: JobId) -> Result<bool, JobsError> {
        let mut state = self.lock();
        let has_ended = state
            .jobs
            .get(&id)
            .is_some_and(|record| record.job.state.is_final());
        if has_ended {
            state.jobs.remove(&id);
            state.forget_missing();
        }
        Ok(has_ended)
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
        state.forget_missing();
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
                    finished_bytes: u64::MAX,
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
                finished_bytes: u64::MAX,
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

    #[tokio::test]
    async fn ended_jobs_are_bounded_in_bytes_and_give_them_back() {
        const BYTES: u64 = 1 << 20;
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let jobs = memory(
            &clock,
            MemoryLimits {
                unfinished: 9,
                finished: usize::MAX,
                finished_bytes: BYTES,
            },
        );
        let end = async |id: u128, prompt: String| {
            let mut job = sample_job(JobId::from_u128(id), clock.wall());
            job.recipe.prompt = prompt;
            let place = jobs.reserve(&job.owner).unwrap();
            jobs.insert(job, place).await.unwrap();
            jobs.transition(JobId::from_u128(id), Transition::Cancel)
                .await
                .unwrap();
        };
        for id in 1..=100 {
            end(id, "🎨".repeat(25_000)).await;
        }
        let kept = jobs.list(&JobFilter::default()).await.unwrap();
        assert_eq!(kept.len(), 10, "each takes 100 kB and a little");
        assert!(kept.iter().all(|job| job.id > JobId::from_u128(90)));
        // One that is larger than all of it is forgotten at once, with all others.
        end(101, "x".repeat(2 << 20)).await;
        assert!(jobs.list(&JobFilter::default()).await.unwrap().is_empty());
        assert_eq!(jobs.lock().finished_bytes, 0);
        end(102, "small".to_owned()).await;
        assert!(jobs.lock().finished_bytes > 0);
        clock.advance(Duration::from_secs(100));
        jobs.expire(clock.wall()).await.unwrap();
        assert_eq!(jobs.lock().finished_bytes, 0);
        assert!(jobs.lock().finished.is_empty());
    }
}
