//! Jobs of this node of which the bucket or the queue may not have what the journal has, so that nobody has to read all jobs to
//! find the few.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pentimento_types::JobId;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    jobs: Mutex<HashSet<JobId>>,
    wake: Notify,
}

impl Unsettled {
    /// This one is to be looked at.
    pub(crate) fn add(&self, id: JobId) {
        if self.lock().insert(id) {
            self.wake.notify_one();
        }
    }

    /// All that are to be looked at, by whoever does so.
    pub(crate) fn take(&self) -> HashSet<JobId> {
        std::mem::take(&mut self.lock())
    }

    /// What could not be looked at now. It wakes nobody: the next round is soon enough.
    pub(crate) fn put_back(&self, jobs: HashSet<JobId>) {
        self.lock().extend(jobs);
    }

    /// Something else than a job is to be looked at.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns when there is something new.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
