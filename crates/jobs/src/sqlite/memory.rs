//! What of the records is kept in memory: the jobs that have not ended, who waits for them, and their places. It follows the
//! database: a change is seen here once it is durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::{Clock, Job, JobId, JobState};
use tokio::sync::watch;

use super::mail::Mail;
use crate::local_queue::LocalQueue;
use crate::{AgeClock, JobCounts, JobFilter, JobPlace, Places};

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) clock: Arc<dyn Clock>,
    /// How old keys are.
    pub(super) ages: AgeClock,
    pub(super) places: Places,
    pub(super) queue: Arc<LocalQueue>,
    pub(super) mail: Mail,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    jobs: BTreeMap<JobId, Kept>,
    running: usize,
}

#[derive(Debug)]
struct Kept {
    job: Arc<Job>,
    /// Given back with the job's end.
    _place: JobPlace,
    /// Shares the ended job, so that who waits gets it even if it is forgotten at once.
    ended: watch::Sender<Option<Arc<Job>>>,
}

impl Memory {
    pub(super) fn new(clock: Arc<dyn Clock>, unfinished: usize) -> Self {
        Self {
            places: Places::new(unfinished),
            queue: Arc::new(LocalQueue::new(Arc::clone(&clock))),
            mail: Mail::new(Arc::clone(&clock)),
            ages: AgeClock::new(Arc::clone(&clock)),
            clock,
            open: Mutex::default(),
        }
    }

    /// A job that has not ended.
    pub(super) fn add(&self, job: Arc<Job>, place: JobPlace) {
        let (ended, _) = watch::channel(None);
        let mut open = self.lock();
        open.running += usize::from(job.state == JobState::Running);
        let kept = Kept {
            job,
            _place: place,
            ended,
        };
        open.jobs.insert(kept.job.id, kept);
    }

    /// A job that has another state now.
    pub(super) fn changed(&self, job: &Job) {
        let mut open = self.lock();
        let is_running = usize::from(job.state == JobState::Running);
        let Some(kept) = open.jobs.get_mut(&job.id) else {
            return;
        };
        let was_running = usize::from(kept.job.state == JobState::Running);
        kept.job = Arc::new(job.clone());
        if job.state.is_final() {
            kept.ended.send_replace(Some(Arc::clone(&kept.job)));
            open.jobs.remove(&job.id);
        }
        open.running = open.running + is_running - was_running;
    }

    pub(super) fn get(&self, id: JobId) -> Option<Arc<Job>> {
        self.lock().jobs.get(&id).map(|kept| Arc::clone(&kept.job))
    }

    /// Where the end of a job will be told; None for one that has ended, or is not known.
    pub(super) fn end_of(&self, id: JobId) -> Option<watch::Receiver<Option<Arc<Job>>>> {
        self.lock().jobs.get(&id).map(|kept| kept.ended.subscribe())
    }

    /// Of the jobs that have not ended.
    pub(super) fn list(&self, filter: &JobFilter) -> Vec<Job> {
        let open = self.lock();
        let kept = open.jobs.range(filter.range());
        filter.choose(kept.map(|(_, kept)| kept.job.as_ref()))
    }

    pub(super) fn counts(&self) -> JobCounts {
        let open = self.lock();
        JobCounts {
            queued: open.jobs.len() - open.running,
            running: open.running,
            limit: self.places.limit(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
