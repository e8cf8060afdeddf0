//! Puts pictures into an object store and gets them back. A picture is there whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStore, ObjectStoreExt as _};
use pentimento_types::{ImageFormat, ImageKey};

use crate::StorageError;
use crate::error::is_full;

/// Where the pictures are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// Below this folder, which is made when it is missing.
    Folder(PathBuf),
    /// In memory, for tests.
    Memory,
}

/// All pictures of the server: inputs until their job has ended, outputs until their links have. Clones share it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The folder below which they are, where it is one.
    folder: Option<PathBuf>,
}

impl ImageStore {
    /// Opens the store. Blocks for a moment on a local folder; call it while the server is put together.
    ///
    /// # Errors
    /// [`StorageError::Store`] when the folder cannot be made or opened.
    pub fn open(config: &StorageConfig) -> Result<Self, StorageError> {
        let objects: Arc<dyn ObjectStore> = match config {
            StorageConfig::Memory => Arc::new(InMemory::new()),
            StorageConfig::Folder(folder) => {
                fs_err::create_dir_all(folder).map_err(|source| StorageError::Store {
                    act: "make",
                    source: Box::new(source),
                })?;
                let store = LocalFileSystem::new_with_prefix(folder)
                    .map_err(|source| StorageError::Store {
                        act: "open",
                        source: Box::new(source),
                    })?
                    // A picture that a finished job names must outlive a power cut.
                    .with_fsync(true)
                    .with_automatic_cleanup(true);
                Arc::new(store)
            }
        };
        let folder = match config {
            StorageConfig::Folder(folder) => Some(folder.clone()),
            StorageConfig::Memory => None,
        };
        Ok(Self { objects, folder })
    }

    /// Stores a whole picture; readers see the old one or the new one, never a part.
    ///
    /// # Errors
    /// [`StorageError::Full`] or [`StorageError::Object`].
    pub async fn put(&self, key: &ImageKey, bytes: Bytes) -> Result<(), StorageError> {
        match self.objects.put(&path(key), bytes.into()).await {
            Ok(_) => Ok(()),
            Err(source) if is_full(&source) => Err(StorageError::Full {
                key: key.clone(),
                source,
            }),
            Err(source) => Err(StorageError::Object {
                act: "store",
                key: key.clone(),
                source,
            }),
        }
    }

    /// Reads a whole picture.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] or [`StorageError::Object`].
    pub async fn get(&self, key: &ImageKey) -> Result<Bytes, StorageError> {
        let read = async {
            if let Some(folder) = &self.folder {
                check_regular(folder.join(key.as_str())).await?;
            }
            self.objects.get(&path(key)).await?.bytes().await
        };
        match read.await {
            Ok(bytes) => Ok(bytes),
            Err(ObjectError::NotFound { .. }) => Err(StorageError::NotFound { key: key.clone() }),
            Err(source) => Err(StorageError::Object {
                act: "read",
                key: key.clone(),
                source,
            }),
        }
    }

    /// Deletes a picture; one that is not there is fine.
    ///
    /// # Errors
    /// [`StorageError::Object`].
    pub async fn delete(&self, key: &ImageKey) -> Result<(), StorageError> {
        match self.objects.delete(&path(key)).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(source) => Err(StorageError::Object {
                act: "delete",
                key: key.clone(),
                source,
            }),
        }
    }
}

/// The media type of a stored picture, by the ending of its name, which we chose by its format.
#[must_use]
pub fn content_type(key: &ImageKey) -> &'static str {
    let ending = key.as_str().rsplit_once('.').map_or("", |(_, ending)| ending);
    ImageFormat::parse(ending).map_or("application/octet-stream", ImageFormat::content_type)
}

/// The store would wait for the other end of a pipe, and read a device to its end. What cannot be looked at is left to it.
async fn check_regular(file: PathBuf) -> Result<(), ObjectError> {
    let look = tokio::task::spawn_blocking(move || fs_err::metadata(file));
    match look.await {
        Ok(Ok(about)) if !about.is_file() => Err(ObjectError::Generic {
            store: "folder",
            source: "not a regular file".into(),
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn path(key: &ImageKey) -> Path {
    // Keys hold letters, digits, `_`, `-`, `.` and `/` only, so nothing is escaped here.
    Path::from(key.as_str())
}

#[cfg(test)]
mod tests {
    use pentimento_types::JobId;

    use super::*;

    async fn behaves(store: &ImageStore) {
        let key = ImageKey::output("lcm_img2img", JobId::from_u128(7), 0, "png");
        assert!(matches!(
            store.get(&key).await,
            Err(StorageError::NotFound { .. })
        ));
        store.put(&key, Bytes::from_static(b"one")).await.unwrap();
        store.put(&key, Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), "two");
        store.delete(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        assert!(matches!(
            store.get(&key).await,
            Err(StorageError::NotFound { .. })
        ));
    }

    #[tokio::test]
    async fn memory_and_folder_behave_alike() {
        behaves(&ImageStore::open(&StorageConfig::Memory).unwrap()).await;
        let folder = tempfile::tempdir().unwrap();
        let config = StorageConfig::Folder(folder.path().join("not/yet/there"));
        behaves(&ImageStore::open(&config).unwrap()).await;
        behaves(&ImageStore::open(&config).unwrap()).await;
    }

    #[tokio::test]
    async fn a_deleted_folder_comes_back_with_the_next_picture() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        let store = ImageStore::open(&StorageConfig::Folder(images.clone())).unwrap();
        fs_err::remove_dir_all(&images).unwrap();
        behaves(&store).await;
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_an_error_and_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&StorageConfig::Folder(folder.path().to_owned())).unwrap();
        // A file where a folder is needed: fails for every user, also for root.
        fs_err::write(folder.path().join("inputs"), "in the way").unwrap();
        let key = ImageKey::input(JobId::from_u128(7), pentimento_types::InputRole::Init);
        let error = store.put(&key, Bytes::from_static(b"one")).await.unwrap_err();
        assert!(matches!(error, StorageError::Object { .. }), "{error:?}");
        fs_err::write(folder.path().join("not-a-folder"), "").unwrap();
        let config = StorageConfig::Folder(folder.path().join("not-a-folder"));
        assert!(matches!(
            ImageStore::open(&config),
            Err(StorageError::Store { .. })
        ));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_instead_of_a_picture_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&StorageConfig::Folder(folder.path().to_owned())).unwrap();
        let key = ImageKey::output("lcm_img2img", JobId::from_u128(7), 0, "png");
        store.put(&key, Bytes::from_static(b"one")).await.unwrap();
        let file = folder.path().join(key.as_str());
        fs_err::remove_file(&file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        let error = store.get(&key).await.unwrap_err();
        assert!(matches!(error, StorageError::Object { .. }), "{error:?}");
    }

    #[test]
    fn the_content_type_follows_the_ending() {
        let job = JobId::from_u128(7);
        for (ending, expected) in [
            ("png", "image/png"),
            ("jpeg", "image/jpeg"),
            ("webp", "image/webp"),
            ("svg", "application/octet-stream"),
        ] {
            assert_eq!(content_type(&ImageKey::output("x", job, 0, ending)), expected);
        }
        assert_eq!(
            content_type(&ImageKey::input(job, pentimento_types::InputRole::Init)),
            "application/octet-stream"
        );
    }
}
