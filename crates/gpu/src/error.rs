//! What can go wrong on a device.

use pentimento_types::ErrorKind;

/// Why something could not be done on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Operands that do not fit each other. A fault of ours: what callers send is checked before.
    #[error("{op}: {what}")]
    Operands {
        /// The operation.
        op: &'static str,
        /// What does not fit, with the shapes.
        what: String,
    },
    /// The device's memory, or the share of it that this process may use, is taken.
    #[error("{asked} bytes of device memory are needed and {free} are free")]
    OutOfMemory {
        /// Bytes that were asked for.
        asked: usize,
        /// Bytes that are free of those that may be used.
        free: usize,
    },
    /// A library does not do what it is asked for, and nothing has been launched. The device is as it was.
    #[error("a layer cannot be computed on the GPU: {why}")]
    Library {
        /// The library's words.
        why: String,
    },
    /// The device does not answer, or has answered with an error after which nothing on it can be trusted.
    /// Nothing but a new process can use it again.
    #[error("the GPU is lost: {why}")]
    Lost {
        /// The driver's words.
        why: String,
    },
    /// There is no device, driver or library to compute with.
    #[error("no GPU can be used: {why}")]
    Unavailable {
        /// What is missing, and how to get it.
        why: String,
    },
}

/// The result of an operation on a device.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn operands(op: &'static str, what: impl Into<String>) -> Self {
        Self::Operands {
            op,
            what: what.into(),
        }
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn library(why: String) -> Self {
        Self::Library { why }
    }

    /// Whether the device is of no use any more.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// The kind that decides about retries and replies.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Operands { .. } | Self::Library { .. } => ErrorKind::Internal,
            Self::OutOfMemory { .. } => ErrorKind::OutOfDeviceMemory,
            Self::Lost { .. } | Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }
}
