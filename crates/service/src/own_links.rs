//! Addresses that lead to this server's own pictures: a finished picture, or one that was uploaded, is taken from the store where
//! a request names its link.
//!
//! The link's signature is the right to see the picture, whatever host stands before it, so nothing is asked of the network: a
//! server that is reached under a private name would not reach itself through the guarded client.

use bytes::Bytes;
use pentimento_storage::{LinkError, StorageError};
use pentimento_types::{ErrorKind, ImageKey};
use url::Url;

use crate::ServiceError;
use crate::inner::Inner;

/// Where the path of a link begins, behind whatever a proxy has before it.
const LINKS: &str = "/files/";

impl Inner {
    /// The file at an address that a caller gave, of at most so many bytes.
    pub(crate) async fn file_at(&self, address: &str, max_bytes: u64) -> Result<Bytes, ServiceError> {
        match self.own_picture(address)? {
            Some(key) => self.stored_file(&key, max_bytes).await,
            None => {
                let fetched = self.fetcher.fetch(address).await;
                fetched.map_err(ServiceError::not_fetched)
            }
        }
    }

    /// The picture that an address of our own making leads to; None for all others.
    fn own_picture(&self, address: &str) -> Result<Option<ImageKey>, ServiceError> {
        let Ok(address) = Url::parse(address) else {
            return Ok(None);
        };
        let Some((_, link)) = address.path().rsplit_once(LINKS) else {
            return Ok(None);
        };
        match self.links.verify(link, self.clock.wall()) {
            // A link to a picture as text means the picture.
            Ok(key) => Ok(Some(key.of_text().unwrap_or(key))),
            Err(LinkError::Expired) => Err(gone("the link of this server has expired")),
            // Others have folders of this name, too.
            Err(LinkError::Invalid) => Ok(None),
        }
    }

    async fn stored_file(&self, key: &ImageKey, limit: u64) -> Result<Bytes, ServiceError> {
        let not_read = |error| match error {
            StorageError::NotFound { .. } => {
                gone("the picture is not kept by this server any more, or not made yet")
            }
            error => ServiceError::store("read the picture")(error),
        };
        let bytes = self.images.size(key).await.map_err(not_read)?;
        if bytes > limit {
            return Err(ServiceError::ImageTooLarge { bytes, limit });
        }
        self.images.get(key).await.map_err(not_read)
    }
}

fn gone(reason: &str) -> ServiceError {
    ServiceError::ImageNotFetched {
        reason: reason.to_owned(),
        kind: ErrorKind::InvalidInput,
        cause: None,
    }
}
