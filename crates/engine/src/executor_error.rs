//! Why an executor could not do what it was told.

use std::error::Error;
use std::sync::Arc;

use pentimento_types::{ErrorKind, HasKind, MemoryFull};

/// A cause that several jobs can share.
pub type SharedCause = Arc<dyn Error + Send + Sync>;

/// Why an executor could not do what it was told. Clones share their cause, since one fault can end many jobs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The weights could not be read.
    #[error("the model `{model}` could not be loaded")]
    ModelLoad {
        /// Name in the catalogue.
        model: String,
        /// What the cause says of itself.
        kind: ErrorKind,
        /// Whether it can never be loaded until somebody changes its files, so that trying again is of no use.
        permanent: bool,
        /// What is wrong with the files, where it can be shown to a caller: it names no path of the server.
        reason: Option<String>,
        /// The cause.
        #[source]
        source: SharedCause,
    },
    /// The device has too little memory. The same states may fit when fewer run together.
    #[error("the device has too little memory to {act}")]
    OutOfDeviceMemory {
        /// What was tried: `prepare`, `denoise` or `finish`.
        act: &'static str,
        /// The cause.
        #[source]
        source: SharedCause,
    },
    /// The memory set aside for a use is taken by other jobs. The job may be prepared when one of them has ended.
    #[error("there is no memory for the job")]
    MemoryFull(#[from] MemoryFull),
    /// Nothing will run on the device any more; the process must be started anew.
    #[error("the device is lost")]
    DeviceLost {
        /// The cause.
        #[source]
        source: SharedCause,
    },
    /// Everything else.
    #[error("could not {act} the picture")]
    Failed {
        /// What was tried: `prepare`, `denoise` or `finish`.
        act: &'static str,
        /// What the cause says of itself.
        kind: ErrorKind,
        /// The cause.
        #[source]
        source: SharedCause,
    },
}

impl ExecutorError {
    /// What a caller may read: what a model's files have wrong stands in the causes, which are for the log.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::ModelLoad {
                reason: Some(reason), ..
            } => format!("{self}: {reason}"),
            Self::ModelLoad { .. }
            | Self::OutOfDeviceMemory { .. }
            | Self::MemoryFull(_)
            | Self::DeviceLost { .. }
            | Self::Failed { .. } => self.to_string(),
        }
    }

    /// Whether the same job fails in the same way however often it is tried, whatever the kind says.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::ModelLoad { permanent: true, .. })
    }
}

impl HasKind for ExecutorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ModelLoad { kind, .. } | Self::Failed { kind, .. } => *kind,
            Self::OutOfDeviceMemory { .. } => ErrorKind::OutOfDeviceMemory,
            Self::MemoryFull(full) if full.is_hopeless() => ErrorKind::TooLarge,
            Self::MemoryFull(_) => ErrorKind::Overloaded,
            Self::DeviceLost { .. } => ErrorKind::Unavailable,
        }
    }
}
