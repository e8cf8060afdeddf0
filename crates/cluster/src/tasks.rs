//! Tasks that end with the thing that they belong to.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;

/// Dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.spawn(task);
    }
}
