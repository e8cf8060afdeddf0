//! What storing and reading pictures can answer instead of a result.

use std::error::Error;
use std::path::PathBuf;

use pentimento_types::{ErrorKind, HasKind, ImageKey};

/// An error of the store or of the link secret.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No object of that name.
    #[error("there is no stored picture {key}")]
    NotFound {
        /// The name.
        key: ImageKey,
    },
    /// The disk has no room.
    #[error("there is no space left to store {key}")]
    Full {
        /// The name.
        key: ImageKey,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The store failed.
    #[error("could not {act} {key}")]
    Object {
        /// The verb.
        act: &'static str,
        /// The name.
        key: ImageKey,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The store could not be opened or listed.
    #[error("could not {act} the picture store")]
    Store {
        /// The verb.
        act: &'static str,
        /// What the store said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The secret that signs the links could not be read or made.
    #[error("could not read or make the link secret {path}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is there and is no secret.
    #[error(
        "{path} is not a link secret (64 hexadecimal digits); delete it to get a new one, which ends all earlier links"
    )]
    BadSecret {
        /// The file.
        path: PathBuf,
    },
}

impl HasKind for StorageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Full { .. }
            | Self::Object { .. }
            | Self::Store { .. }
            | Self::Secret { .. }
            | Self::BadSecret { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Whether the cause, however deep, is a full disk.
pub(crate) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}
