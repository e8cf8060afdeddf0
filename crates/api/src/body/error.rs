//! Why a body could not be read. Each dialect writes it in its own words.

use pentimento_types::{ErrorKind, HasKind};

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// More bytes than the limit.
    #[error("the body is larger than {} MiB; send a smaller picture", limit / (1024 * 1024))]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It came too slowly.
    #[error("the body took too long to arrive")]
    TooSlow,
    /// What all callers' bodies take together has reached its bound.
    #[error("the server has no room for this body now; try again later")]
    NoRoom,
    /// The connection broke or the framing was wrong.
    #[error("the body could not be read to its end")]
    Broken,
    /// A compressed body; refused, so that 10 kB cannot become 10 GB.
    #[error("the body has Content-Encoding {encoding:?}, which is not supported; send it uncompressed")]
    Compressed {
        /// What the header says.
        encoding: String,
    },
}

impl HasKind for BodyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::TooSlow => ErrorKind::DeadlineExceeded,
            Self::NoRoom => ErrorKind::Overloaded,
            Self::Broken | Self::Compressed { .. } => ErrorKind::InvalidInput,
        }
    }
}
