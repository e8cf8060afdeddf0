//! Deletes what nobody can ask for any more: outputs whose links have ended, inputs that a crash left behind.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use futures::TryStreamExt as _;
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

    /// Deletes what writers of a process that is gone have left half written beside the pictures of a folder, before `time`.
    /// Says how many files that was. Elsewhere a picture that did not arrive as a whole is nothing at all.
    ///
    /// # Errors
    /// [`StorageError::Store`].
    pub async fn delete_unfinished(&self, time: SystemTime) -> Result<usize, StorageError> {
        let Some(folder) = self.folder.clone() else {
            return Ok(0);
        };
        let failed = |source: Box<dyn Error + Send + Sync>| StorageError::Store {
            act: "tidy up",
            source,
        };
        let deleted = tokio::task::spawn_blocking(move || delete_staged(&folder, time));
        let deleted = deleted.await.map_err(|panic| failed(Box::new(panic)))?;
        deleted.map_err(|source| failed(Box::new(source)))
    }

    async fn older(&self, folder: &str, time: SystemTime) -> Result<Vec<ImageKey>, StorageError> {
        let folder = self.below(folder);
        let found: Result<Vec<_>, object_store::Error> = self
            .objects
            .list(Some(&folder))
            .try_filter(|object| std::future::ready(SystemTime::from(object.last_modified) < time))
            .map_ok(|object| self.key_of(&object.location))
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

/// The store writes `name#1` and renames it to `name`.
fn is_staged(name: &str) -> bool {
    let number = name.split_once('#').map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// Follows no links: only what is really below the folder is ours.
fn delete_staged(folder: &Path, time: SystemTime) -> io::Result<usize> {
    let mut deleted = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs_err::read_dir(&folder) {
            // Its last picture was deleted in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                folders.push(entry.path());
            } else if about.is_file()
                && entry.file_name().to_str().is_some_and(is_staged)
                && about.modified().is_ok_and(|modified| modified < time)
            {
                fs_err::remove_file(entry.path())?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
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

    #[tokio::test]
    async fn half_written_files_of_the_past_are_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&StorageConfig::Folder(folder.path().to_owned())).unwrap();
        let key = ImageKey::output("x", JobId::from_u128(7), 0, "png");
        store.put(&key, Bytes::from_static(b"one")).await.unwrap();
        let inputs = folder.path().join("inputs/7");
        fs_err::create_dir_all(&inputs).unwrap();
        let kept = ["notes#a", "notes#", "plain"].map(|name| inputs.join(name));
        let staged = [folder.path().join(format!("{key}#1")), inputs.join("init#12")];
        for file in kept.iter().chain(&staged) {
            fs_err::write(file, "").unwrap();
        }
        let now = SystemClock.wall();
        let (earlier, later) = (now - Duration::from_secs(3600), now + Duration::from_secs(3600));
        assert_eq!(
            store.delete_unfinished(earlier).await.unwrap(),
            0,
            "they may be in use"
        );
        assert_eq!(store.delete_unfinished(later).await.unwrap(), 2);
        assert!(kept.iter().all(|file| file.exists()));
        assert!(!staged.iter().any(|file| file.exists()));
        assert_eq!(store.get(&key).await.unwrap(), "one");
        fs_err::remove_dir_all(folder.path()).unwrap();
        assert_eq!(
            store.delete_unfinished(later).await.unwrap(),
            0,
            "the folder is gone"
        );
    }
}
