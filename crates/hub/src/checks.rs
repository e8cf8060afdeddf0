//! Which files have been compared with their sha256, as long as they are what they were then.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pentimento_types::open_regular;
use sha2::{Digest as _, Sha256};

use crate::HubError;
use crate::writer::{hash_into, hex};

/// What tells a file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    bytes: u64,
    changed: Option<SystemTime>,
    #[cfg(unix)]
    place: (u64, u64),
}

impl FileState {
    fn of(about: &std::fs::Metadata) -> Self {
        Self {
            bytes: about.len(),
            changed: about.modified().ok(),
            #[cfg(unix)]
            place: {
                use std::os::unix::fs::MetadataExt as _;
                (about.dev(), about.ino())
            },
        }
    }
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<HashMap<PathBuf, (FileState, String)>>);

impl Checks {
    /// The sha256 of the file as it is now; None when nobody knows it yet.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub(crate) fn known(&self, path: &Path) -> std::io::Result<Option<String>> {
        let now = FileState::of(&fs_err::metadata(path)?);
        let known = self.known_files();
        let found = known.get(path).filter(|(state, _)| *state == now);
        Ok(found.map(|(_, found)| found.clone()))
    }

    /// Remembers what was found when the file was written or read.
    pub(crate) fn remember(&self, path: &Path, sha256: String) {
        if let Ok(about) = fs_err::metadata(path) {
            self.known_files()
                .insert(path.to_owned(), (FileState::of(&about), sha256));
        }
    }

    /// Reads the whole file and compares. Says after each piece how long it was.
    pub(crate) fn check(
        &self,
        path: &Path,
        expected: &str,
        counted: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let failed = || HubError::disk("read its file", path);
        let mut file = open_regular(path).map_err(|fault| failed()(fault.into()))?;
        let state = FileState::of(&file.metadata().map_err(failed())?);
        let mut hasher = Sha256::new();
        hash_into(&mut hasher, &mut file, counted).map_err(failed())?;
        let found = hex(hasher);
        let wrong = found != expected;
        self.known_files().insert(path.to_owned(), (state, found.clone()));
        if wrong {
            return Err(HubError::ChangedFile {
                expected: expected.to_owned(),
                found,
            });
        }
        Ok(())
    }

    fn known_files(&self) -> MutexGuard<'_, HashMap<PathBuf, (FileState, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compared_with_its_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc.safetensors");
        fs_err::write(&path, "abc").unwrap();
        let checks = Checks::default();
        let check = |path: &Path, expected: &str| checks.check(path, expected, &mut |_| {});
        // From FIPS 180-2, appendix B.1.
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&path, right).unwrap();
        let wrong = check(&path, &right.replace('b', "c")).unwrap_err();
        assert!(
            matches!(&wrong, HubError::ChangedFile { found, .. } if found == right),
            "{wrong}"
        );
        assert!(check(folder.path(), right).is_err());
        assert!(check(&folder.path().join("absent"), right).is_err());
    }
}
