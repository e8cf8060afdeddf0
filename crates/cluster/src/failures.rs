//! What goes wrong with the broker, as errors of a store and a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pentimento_jobs::JobsError;

/// Set by whoever did not find on the broker what should be there. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether it was set since the last time.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// The broker cannot be reached.
pub(crate) fn away() -> JobsError {
    JobsError::Backend {
        what: "reach the broker of the cluster",
        source: "there is no connection to it".into(),
    }
}

/// The broker is connected and does not answer, or refuses to keep anything.
pub(crate) fn silent() -> JobsError {
    JobsError::Backend {
        what: "reach the broker of the cluster",
        source: "it is connected and does not keep what it is given".into(),
    }
}

/// For `map_err`.
pub(crate) fn failed<E>(what: &'static str) -> impl FnOnce(E) -> JobsError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| JobsError::Backend {
        what,
        source: error.into(),
    }
}
