//! Which jobs somebody in this process has in hand.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::JobId;

/// Ids of jobs that somebody in this process will bring further, or end.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobMarks {
    ids: Arc<Mutex<HashSet<JobId>>>,
}

/// Keeps an id among them until it is dropped.
#[derive(Debug)]
pub(crate) struct Mark {
    all: JobMarks,
    id: JobId,
}

impl JobMarks {
    /// Before the job is stored in the state that this is about, so that nobody finds it without its mark.
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
