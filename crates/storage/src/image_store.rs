//! Puts pictures into an object store and gets them back. A picture is there whole or not at all.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{
    Attribute, Attributes, Error as ObjectError, ObjectStore, ObjectStoreExt as _, PutOptions,
};
use pentimento_types::{ImageFormat, ImageKey, JobId};

use crate::error::is_full;
use crate::{S3Config, StorageError};

/// Where the pictures are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// Below this folder, which is made when it is missing.
    Folder(PathBuf),
    /// In a bucket.
    S3(S3Config),
    /// In memory, for tests.
    Memory,
}

/// What somebody wants of a picture behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its bytes, or a part of them.
    Read,
    /// What is said about it only.
    Look,
}

/// All pictures of the server: inputs until their job has ended, outputs until their links have. Clones share it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The folder below which they are, where it is one.
    pub(crate) folder: Option<PathBuf>,
    /// The bucket in which they are, where it is one.
    bucket: Option<Bucket>,
}

#[derive(Clone, Debug)]
struct Bucket {
    prefix: Path,
    signer: Arc<AmazonS3>,
    redirects: bool,
}

impl ImageStore {
    /// Opens the store. Blocks for a moment on a local folder; call it while the server is put together.
    ///
    /// # Errors
    /// [`StorageError::Store`] when the folder cannot be made or opened.
    pub fn open(config: &StorageConfig) -> Result<Self, StorageError> {
        match config {
            StorageConfig::Memory => Ok(Self {
                objects: Arc::new(InMemory::new()),
                folder: None,
                bucket: None,
            }),
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
                Ok(Self {
                    objects: Arc::new(store),
                    folder: Some(folder.clone()),
                    bucket: None,
                })
            }
            StorageConfig::S3(config) => {
                let store = config.open()?;
                Ok(Self {
                    objects: Arc::clone(&store) as Arc<dyn ObjectStore>,
                    folder: None,
                    bucket: Some(Bucket {
                        prefix: Path::from(config.prefix()),
                        signer: store,
                        redirects: config.redirects(),
                    }),
                })
            }
        }
    }

    /// Asks the store whether it is there and lets us in, by asking for a picture that is not.
    ///
    /// # Errors
    /// [`StorageError::Object`].
    pub async fn check(&self) -> Result<(), StorageError> {
        let nobodys = ImageKey::output("check", JobId::from_u128(0), 0, "png");
        self.has(&nobodys).await.map(drop)
    }

    /// Whether a picture is there.
    ///
    /// # Errors
    /// [`StorageError::Object`].
    pub async fn has(&self, key: &ImageKey) -> Result<bool, StorageError> {
        match self.objects.head(&self.path(key)).await {
            Ok(_) => Ok(true),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(source) => Err(StorageError::Object {
                act: "look at",
                key: key.clone(),
                source,
            }),
        }
    }

    /// A pre-signed address in the bucket, where callers are to get their pictures from there. It is not said whether the
    /// picture is there.
    ///
    /// # Errors
    /// [`StorageError::Object`] when the credentials cannot be had.
    pub async fn elsewhere(
        &self,
        key: &ImageKey,
        access: Access,
        life: Duration,
    ) -> Result<Option<String>, StorageError> {
        let Some(bucket) = self.bucket.as_ref().filter(|bucket| bucket.redirects) else {
            return Ok(None);
        };
        let method = match access {
            Access::Read => Method::GET,
            Access::Look => Method::HEAD,
        };
        let signed = bucket.signer.signed_url(method, &self.path(key), life).await;
        signed
            .map(|url| Some(url.into()))
            .map_err(|source| StorageError::Object {
                act: "sign an address for",
                key: key.clone(),
                source,
            })
    }

    /// Stores a whole picture; readers see the old one or the new one, never a part.
    ///
    /// # Errors
    /// [`StorageError::Full`] or [`StorageError::Object`].
    pub async fn put(&self, key: &ImageKey, bytes: Bytes) -> Result<(), StorageError> {
        match self
            .objects
            .put_opts(&self.path(key), bytes.into(), self.about(key))
            .await
        {
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
            self.check_regular(key).await?;
            self.objects.get(&self.path(key)).await?.bytes().await
        };
        read.await.map_err(not_read(key))
    }

    /// The size of a picture in bytes; nothing of it is read.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn size(&self, key: &ImageKey) -> Result<u64, StorageError> {
        let about = self.objects.head(&self.path(key)).await;
        about.map(|about| about.size).map_err(not_read(key))
    }

    /// Reads a part of a picture, which must lie within its size.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_range(&self, key: &ImageKey, range: Range<u64>) -> Result<Bytes, StorageError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = async {
            self.check_regular(key).await?;
            self.objects.get_range(&self.path(key), range).await
        };
        read.await.map_err(not_read(key))
    }

    /// The store would wait for the other end of a pipe, and read a device to its end. What cannot be looked at is left to it.
    async fn check_regular(&self, key: &ImageKey) -> Result<(), ObjectError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let file = folder.join(key.as_str());
        let look = tokio::task::spawn_blocking(move || fs_err::metadata(file));
        match look.await {
            Ok(Ok(about)) if !about.is_file() => Err(ObjectError::Generic {
                store: "folder",
                source: "not a regular file".into(),
            }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Deletes a picture; one that is not there is fine.
    ///
    /// # Errors
    /// [`StorageError::Object`].
    pub async fn delete(&self, key: &ImageKey) -> Result<(), StorageError> {
        match self.objects.delete(&self.path(key)).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(source) => Err(StorageError::Object {
                act: "delete",
                key: key.clone(),
                source,
            }),
        }
    }

    /// What is kept beside the bytes: a bucket tells callers what they are, a folder cannot.
    fn about(&self, key: &ImageKey) -> PutOptions {
        if self.bucket.is_none() {
            return PutOptions::default();
        }
        let attributes = [
            (Attribute::ContentType, content_type(key)),
            (Attribute::CacheControl, "private, max-age=3600, immutable"),
        ];
        PutOptions::from(attributes.into_iter().collect::<Attributes>())
    }

    /// Keys hold letters, digits, `_`, `-`, `.` and `/` only, so nothing is escaped here.
    pub(crate) fn path(&self, key: &ImageKey) -> Path {
        self.below(key.as_str())
    }

    /// Where a folder of keys is.
    pub(crate) fn below(&self, key: &str) -> Path {
        match &self.bucket {
            Some(bucket) => Path::from_iter(bucket.prefix.parts().chain(Path::from(key).parts())),
            None => Path::from(key),
        }
    }

    /// The key of an object that was found; None for one that is nobody's.
    pub(crate) fn key_of(&self, location: &Path) -> Option<ImageKey> {
        let prefix = self
            .bucket
            .as_ref()
            .map(|bucket| bucket.prefix.as_ref())
            .unwrap_or_default();
        let rest = location.as_ref().strip_prefix(prefix)?;
        ImageKey::from_link(rest.strip_prefix('/').unwrap_or(rest))
    }
}

fn not_read(key: &ImageKey) -> impl FnOnce(ObjectError) -> StorageError + use<> {
    let key = key.clone();
    move |source| {
        if let ObjectError::NotFound { .. } = source {
            return StorageError::NotFound { key };
        }
        StorageError::Object {
            act: "read",
            key,
            source,
        }
    }
}

/// The media type of a stored picture, by the ending of its name, which we chose by its format.
#[must_use]
pub fn content_type(key: &ImageKey) -> &'static str {
    let ending = key.as_str().rsplit_once('.').map_or("", |(_, ending)| ending);
    ImageFormat::parse(ending).map_or("application/octet-stream", ImageFormat::content_type)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(store.size(&key).await.unwrap(), 3);
        assert_eq!(store.get_range(&key, 1..2).await.unwrap(), "w");
        assert_eq!(store.get_range(&key, 3..3).await.unwrap(), "");
        store.delete(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        assert!(matches!(
            store.size(&key).await,
            Err(StorageError::NotFound { .. })
        ));
        assert!(matches!(
            store.get_range(&key, 0..1).await,
            Err(StorageError::NotFound { .. })
        ));
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
