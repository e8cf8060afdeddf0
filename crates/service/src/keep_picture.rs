//! Stores pictures that belong to no job, and deletes them when their links have ended.

use std::time::Duration;

use bytes::Bytes;
use pentimento_types::{ApiKeyId, ImageKey, describe_chain};

use crate::inner::Inner;
use crate::kept_pictures::{Kept, LEAST_BYTES};
use crate::{ServiceConfig, ServiceError};

impl Inner {
    /// Stores a picture that belongs to no job, and gives a signed path to it that works for `life`. It is deleted some
    /// minutes after that.
    pub(crate) async fn keep_picture(
        &self,
        owner: &ApiKeyId,
        (key, file): (ImageKey, Bytes),
        life: Duration,
    ) -> Result<String, ServiceError> {
        let now = self.clock.now();
        let kept = Kept {
            key: key.clone(),
            owner: owner.clone(),
            bytes: (file.len() as u64).max(LEAST_BYTES),
            until: now + life + ServiceConfig::margin(),
        };
        self.kept_pictures.reserve(kept, now)?;
        if let Err(error) = self.images.put(&key, file).await {
            self.kept_pictures.forget(&key);
            return Err(ServiceError::store("store the picture")(error));
        }
        Ok(format!("/{}", self.links.sign(&key, self.clock.wall() + life)))
    }

    /// Deletes those whose links have ended. What cannot be deleted is tried again in the next round.
    pub(crate) async fn delete_expired_pictures(&self) {
        for key in self.kept_pictures.expired(self.clock.now()) {
            match self.images.delete(&key).await {
                Ok(()) => self.kept_pictures.forget(&key),
                Err(error) => {
                    tracing::warn!(%key, error = describe_chain(&error), "a kept picture could not be deleted");
                }
            }
        }
    }
}
