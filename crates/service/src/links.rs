//! Links to finished pictures, and the pictures behind them.

use std::time::Duration;

use bytes::Bytes;
use pentimento_storage::{LinkError, StorageError, content_type};
use pentimento_types::{ImageKey, Job, StoredImage};

use crate::{Service, ServiceError};

/// A signed address of a picture on this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLink {
    /// `/files/<key>?expires=…&signature=…`, to be put behind the server's public address.
    pub path: String,
    /// What is left of the link's life.
    pub ttl: Duration,
}

/// What a valid link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// The whole file.
    pub bytes: Bytes,
    /// Its media type.
    pub content_type: &'static str,
    /// Its object name.
    pub key: ImageKey,
}

impl Service {
    /// A signed link to a finished picture of `job`. Its life is counted from the end of the job, so every link to a
    /// picture ends at the same time, and the picture is there as long as its links are.
    #[must_use]
    pub fn link(&self, job: &Job, image: &StoredImage) -> ImageLink {
        let now = self.inner.clock.wall();
        let whole = self.inner.config.link_ttl;
        let expires_at = job.finished_at.unwrap_or(now) + whole;
        // A clock that was set back must not promise more than a whole life.
        let ttl = expires_at.duration_since(now).unwrap_or_default().min(whole);
        ImageLink {
            path: format!("/{}", self.inner.links.sign(&image.key, expires_at)),
            ttl,
        }
    }

    /// The picture behind a link. `path` is what follows `/files/` (that prefix may also be there), `query` what
    /// follows the question mark, both as they came.
    ///
    /// # Errors
    /// [`ServiceError::LinkInvalid`], [`ServiceError::LinkExpired`], [`ServiceError::ImageGone`].
    pub async fn open_link(&self, path: &str, query: &str) -> Result<LinkedFile, ServiceError> {
        let now = self.inner.clock.wall();
        let key = self
            .inner
            .links
            .verify(path, query, now)
            .map_err(|error| match error {
                LinkError::Invalid => ServiceError::LinkInvalid,
                LinkError::Expired => ServiceError::LinkExpired,
            })?;
        match self.inner.images.get(&key).await {
            Ok(bytes) => Ok(LinkedFile {
                bytes,
                content_type: content_type(&key),
                key,
            }),
            Err(StorageError::NotFound { .. }) => Err(ServiceError::ImageGone),
            Err(error) => Err(ServiceError::store("read the picture")(error)),
        }
    }
}
