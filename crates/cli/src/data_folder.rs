//! The folder that one server owns. Locks keep a second server out of it: one on a file in it, and where the system lets
//! folders be locked, one on the folder itself, which stays when somebody deletes the file.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const LOCK_FILE: &str = "pentimento.lock";

/// The locked folder; the locks end with this value, also when the process is killed.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    lock: std::fs::File,
    /// None where folders cannot be opened.
    folder: Option<std::fs::File>,
}

impl DataFolder {
    /// Makes the folder when it is missing and takes its locks.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        make_private(path).context("cannot use the data folder")?;
        let file = path.join(LOCK_FILE);
        // A pipe of this name would be waited for without end.
        let is_foreign = fs_err::symlink_metadata(&file).is_ok_and(|found| !found.is_file());
        anyhow::ensure!(
            !is_foreign,
            "{} is no file; remove it, or choose another folder with --data DIR",
            file.display()
        );
        let folder = folder_itself(path);
        // Some file systems have no locks for folders; the lock of the file is there as well.
        if let Some(Err(TryLockError::WouldBlock)) = folder.as_ref().map(std::fs::File::try_lock) {
            return Err(taken(path));
        }
        let mut options = fs_err::OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        {
            use fs_err::os::unix::fs::OpenOptionsExt as _;
            // Whoever can open it can lock it, and keep the server out.
            options.mode(0o600);
        }
        let lock = options
            .open(file)
            .context("cannot write to the data folder")?
            .into_parts()
            .0;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock,
                folder,
            }),
            Err(TryLockError::WouldBlock) => Err(taken(path)),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock the data folder {}", path.display()))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to what is locked. If not, somebody has moved or replaced the folder, or deleted the
    /// lock, and another server may write at the same place. May wait for the disk.
    pub(crate) fn is_in_place(&self) -> bool {
        same(&self.lock, &self.path.join(LOCK_FILE))
            && self.folder.as_ref().is_none_or(|folder| same(folder, &self.path))
    }
}

/// Makes the folder, where it is missing, for its owner alone: prompts, addresses of webhooks and pictures are in it. One that is
/// there may be shared for a reason, so its owner is told how it is and decides.
#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let mode = fs_err::metadata(path)?.permissions().mode();
    if mode & 0o007 != 0 {
        tracing::warn!(
            data = %path.display(),
            mode = %format_args!("{:03o}", mode & 0o777),
            "every user of this machine can look into the data folder; chmod 700 closes it"
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(path: &Path) -> std::io::Result<()> {
    fs_err::create_dir_all(path)
}

fn taken(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "another pentimento server uses the data folder {}; stop it, or choose another folder with --data DIR",
        path.display()
    )
}

#[cfg(unix)]
fn folder_itself(path: &Path) -> Option<std::fs::File> {
    let folder = fs_err::File::open(path).ok()?;
    Some(folder.into_parts().0)
}

#[cfg(not(unix))]
fn folder_itself(_: &Path) -> Option<std::fs::File> {
    None
}

/// Whether a path leads to what is open. A disk that does not answer at the moment proves nothing.
#[cfg(unix)]
fn same(open: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (open.metadata(), fs_err::metadata(path)) {
        (Ok(open), Ok(found)) => (open.dev(), open.ino()) == (found.dev(), found.ino()),
        (_, Err(error)) => error.kind() != std::io::ErrorKind::NotFound,
        (Err(_), Ok(_)) => true,
    }
}

#[cfg(not(unix))]
fn same(_: &std::fs::File, path: &Path) -> bool {
    path.exists()
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

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_made_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let _data = DataFolder::open(&path).unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK_FILE)), 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_without_its_lock_file_is_still_taken_and_known_to_be_meddled_with() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        assert!(first.is_in_place());
        fs_err::remove_file(folder.path().join(LOCK_FILE)).unwrap();
        assert!(DataFolder::open(folder.path()).is_err());
        assert!(!first.is_in_place());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_replaced_is_noticed_and_one_that_came_back_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("data"), folder.path().join("away"));
        let first = DataFolder::open(&path).unwrap();
        fs_err::rename(&path, &away).unwrap();
        assert!(!first.is_in_place(), "it is gone");
        assert!(DataFolder::open(&away).is_err(), "its lock went along");
        let second = DataFolder::open(&path).unwrap();
        assert!(
            second.is_in_place() && !first.is_in_place(),
            "another one is there"
        );
        fs_err::remove_dir_all(&path).unwrap();
        fs_err::rename(&away, &path).unwrap();
        assert!(first.is_in_place() && !second.is_in_place());
    }
}
