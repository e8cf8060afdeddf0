//! Deletes what nobody can ask for any more: outputs whose links have ended, inputs that a crash left behind.

use std::time::SystemTime;

use futures::TryStreamExt as _;
use object_store::path::Path;
use pentimento_types::ImageKey;

use crate::{ImageStore, StorageError};

impl ImageStore {
    /// Finished pictures that were stored before `time`.
    ///
    /// # Errors
    /// [`StorageError::Store`].
    pub async fn outputs_before(&self, time: SystemTime) -> Result<Vec<ImageKey>, StorageError> {
        self.older("generations", time).await
    }

    /// Input pictures that were stored before `time`; some may belong to jobs that still wait.
    ///
    /// # Errors
    /// [`StorageError::Store`].
    pub async fn inputs_before(&self, time: SystemTime) -> Result<Vec<ImageKey>, StorageError> {
        self.older("inputs", time).await
    }

    async fn older(&self, folder: &str, time: SystemTime) -> Result<Vec<ImageKey>, StorageError> {
        let folder = Path::from(folder);
        let found: Result<Vec<_>, object_store::Error> = self
            .objects
            .list(Some(&folder))
            .try_filter(|object| std::future::ready(SystemTime::from(object.last_modified) < time))
            .map_ok(|object| ImageKey::from_link(object.location.as_ref()))
            .try_collect()
            .await;
        // A name that is no key was put there by somebody else, and stays.
        found
            .map(|keys| keys.into_iter().flatten().collect())
            .map_err(|source| StorageError::Store {
                act: "list",
                source: Box::new(source),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use pentimento_types::{Clock as _, JobId, SystemClock};

    use super::*;
    use crate::StorageConfig;

    #[tokio::test]
    async fn only_old_pictures_of_the_right_side_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&StorageConfig::Folder(folder.path().to_owned())).unwrap();
        let job = JobId::from_u128(7);
        let (output, input) = (
            ImageKey::output("x", job, 0, "png"),
            ImageKey::input(job, pentimento_types::InputRole::Init),
        );
        store.put(&output, Bytes::from_static(b"one")).await.unwrap();
        store.put(&input, Bytes::from_static(b"two")).await.unwrap();
        fs_err::write(folder.path().join("generations/not a key.txt"), "").unwrap();
        let now = SystemClock.wall();
        let (earlier, later) = (now - Duration::from_secs(3600), now + Duration::from_secs(3600));
        assert_eq!(store.outputs_before(earlier).await.unwrap(), []);
        assert_eq!(store.outputs_before(later).await.unwrap(), [output]);
        assert_eq!(store.inputs_before(later).await.unwrap(), [input]);
    }

    #[tokio::test]
    async fn an_empty_store_has_nothing_old() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&StorageConfig::Folder(folder.path().to_owned())).unwrap();
        assert_eq!(store.outputs_before(SystemClock.wall()).await.unwrap(), []);
    }
}
