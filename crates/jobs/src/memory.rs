//! Job records and queue in memory: for a server that keeps nothing over a restart, and for tests.
//!
//! One lock, never held across an await. Waiting is by notification: an ending job wakes those who wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Clock, Job, JobId, JobState};
use tokio::sync::watch;

use crate::local_queue::LocalQueue;
use crate::{
    Claim, JobCounts, JobFilter, JobPlace, JobQueue, JobStore, JobsError, Places, QueueEntry, Transition,
};

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
    queue: LocalQueue,
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
                clock,
                limits,
                places: Places::new(limits.unfinished),
                state: Mutex::default(),
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
        let jobs = state
            .jobs
            .values()
            .map(|record| record.job.as_ref())
            .filter(|job| filter.fits(job));
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
        let State {
            finished,
            finished_bytes,
            jobs,
            ..
        } = &mut *state;
        finished.retain(|(id, bytes)| {
            let kept = jobs.contains_key(id);
            *finished_bytes -= if kept { 0 } else { *bytes };
            kept
        });
        Ok(old)
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
