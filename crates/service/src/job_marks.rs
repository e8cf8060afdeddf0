//! The jobs whose images this process is fetching.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::JobId;

/// Ids of jobs that somebody in this process will queue or fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetching {
    ids: Arc<Mutex<HashSet<JobId>>>,
}

/// Keeps an id among them until it is dropped.
#[derive(Debug)]
pub(crate) struct Mark {
    all: Fetching,
    id: JobId,
}

impl Fetching {
    /// Before the job is stored, so that nobody finds it without its mark.
    pub(crate) fn mark(&self, id: JobId) -> Mark {
        self.ids().insert(id);
        let all = self.clone();
        Mark { all, id }
    }

    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.ids().contains(&id)
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.all.ids().remove(&self.id);
    }
}
