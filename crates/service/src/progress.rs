//! How far running jobs are: in memory only, since a durable write for every evaluation would cost more than it tells.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pentimento_types::{JobId, Progress};

use crate::Service;

/// The latest word of every attempt that is running in this process.
#[derive(Debug, Default)]
pub(crate) struct ProgressHub {
    running: Mutex<HashMap<JobId, Progress>>,
}

impl ProgressHub {
    /// An attempt at this job begins; when what is returned is dropped, nothing is known of it any more.
    pub(crate) fn begin(&self, id: JobId) -> Reporter<'_> {
        self.running().insert(id, Progress::default());
        Reporter { hub: self, id }
    }

    fn get(&self, id: JobId) -> Option<Progress> {
        self.running().get(&id).copied()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Progress>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one attempt reports through.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    hub: &'a ProgressHub,
    id: JobId,
}

impl Reporter<'_> {
    pub(crate) fn report(&self, progress: Progress) {
        self.hub.running().insert(self.id, progress);
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.hub.running().remove(&self.id);
    }
}

impl Service {
    /// How far a job is that runs in this process; None for every other one.
    #[must_use]
    pub fn progress(&self, id: JobId) -> Option<Progress> {
        self.inner.progress.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_known_while_it_runs() {
        let (hub, id) = (ProgressHub::default(), JobId::from_u128(1));
        assert_eq!(hub.get(id), None);
        let reporter = hub.begin(id);
        assert_eq!(hub.get(id), Some(Progress::default()));
        reporter.report(Progress { done: 1, total: 4 });
        assert_eq!(hub.get(id), Some(Progress { done: 1, total: 4 }));
        drop(reporter);
        assert_eq!(hub.get(id), None);
    }
}
