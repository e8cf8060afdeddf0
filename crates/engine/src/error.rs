//! Why the engine did not make an image.

use pentimento_types::{ErrorKind, HasKind, MemoryFull};

use crate::ExecutorError;

/// Clones share their cause.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// As many jobs as the policy allows are inside.
    #[error("the engine has {limit} jobs already")]
    Overloaded {
        /// The policy's `max_jobs`.
        limit: usize,
    },
    /// The memory set aside for a use is taken by the jobs inside.
    #[error("the engine has no memory for the job")]
    MemoryFull(#[from] MemoryFull),
    /// A job with this id is already inside.
    #[error("the job is already running")]
    Duplicate,
    /// The engine is stopping; the job may be started again elsewhere or later.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The device thread is gone, which is a fault of ours.
    #[error("the device thread has ended")]
    Stopped,
    /// The job was not finished at its deadline.
    #[error("the job was not finished at its deadline")]
    DeadlineExceeded,
    /// An act panicked while the job was alone in it. The panic's text is in the log only.
    #[error("a fault in the engine ended the job")]
    Panicked {
        /// What was tried: `load`, `prepare`, `denoise` or `finish`.
        act: &'static str,
    },
    /// The executor answered for a wrong number of images, which is a fault of ours.
    #[error("{found} images were prepared instead of {expected}")]
    ImageCount {
        /// The request's `image_count`.
        expected: u32,
        /// Images prepared.
        found: usize,
    },
    /// The operating system gave no thread.
    #[error("a thread could not be started")]
    Spawn(#[source] std::sync::Arc<std::io::Error>),
    /// The executor failed.
    #[error("the executor failed")]
    Executor(#[from] ExecutorError),
}

impl EngineError {
    /// Whether the same job fails in the same way however often it is tried, whatever the kind says.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Executor(error) if error.is_permanent())
    }
}

impl HasKind for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::MemoryFull(full) if full.is_hopeless() => ErrorKind::TooLarge,
            Self::Overloaded { .. } | Self::MemoryFull(_) => ErrorKind::Overloaded,
            Self::Duplicate => ErrorKind::Conflict,
            Self::ShuttingDown | Self::Stopped | Self::Spawn(_) => ErrorKind::Unavailable,
            Self::DeadlineExceeded => ErrorKind::DeadlineExceeded,
            Self::Panicked { .. } | Self::ImageCount { .. } => ErrorKind::Internal,
            Self::Executor(error) => error.kind(),
        }
    }
}
