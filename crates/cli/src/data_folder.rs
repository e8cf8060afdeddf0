//! The folder that one server owns. A lock file keeps a second server out of it.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const LOCK_FILE: &str = "pentimento.lock";

/// The locked folder; the lock ends with this value, also when the process is killed.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: std::fs::File,
}

impl DataFolder {
    /// Makes the folder when it is missing and takes its lock.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        fs_err::create_dir_all(path).context("cannot use the data folder")?;
        let file = path.join(LOCK_FILE);
        // A pipe of this name would be waited for without end.
        let is_foreign = fs_err::symlink_metadata(&file).is_ok_and(|found| !found.is_file());
        anyhow::ensure!(
            !is_foreign,
            "{} is no file; remove it, or choose another folder with --data DIR",
            file.display()
        );
        let lock = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(file)
            .context("cannot write to the data folder")?
            .into_parts()
            .0;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another pentimento server uses the data folder {}; stop it, or choose another folder with --data DIR",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock the data folder {}", path.display()))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataFolder::open(&path).unwrap();
        let second = DataFolder::open(&path).unwrap_err().to_string();
        assert!(second.contains("--data DIR"), "{second}");
        drop(first);
        assert_eq!(DataFolder::open(&path).unwrap().path(), path);
    }
}
