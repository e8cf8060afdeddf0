//! Keys on the disk of the data folder: made and revoked by a command while the server runs, and read again by the server.
//!
//! Only the SHA-256 of a secret is stored. The file is replaced in one step, readable by its owner only, and changed by
//! one program at a time. Beside it stands a mark that keys are asked for: a file that is gone while its mark is there was
//! lost, and opens no server.

use std::fs::TryLockError;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pentimento_types::{FileFault, read_regular};
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};

use crate::key_record::{LONGEST_LABEL, NewKey, StoredKey, check_label, seconds, to_hex};

/// Every secret begins so, for people and for programs that look for secrets where none should be.
pub const SECRET_PREFIX: &str = "pnt_";
/// Keys that the file may hold, revoked ones included.
const MOST_KEYS: usize = 10_000;

const FILE: &str = "keys.json";
const MARK: &str = "keys.required";
const LOCK: &str = "keys.lock";
/// What will be the file. Always the same, so that what a killed command has left is used up by the next one.
const DRAFT: &str = "keys.json.new";
const VERSION: u32 = 1;
/// A key takes about 250 bytes.
const LARGEST_FILE: u64 = 8 << 20;
/// How long another program may be busy with the file.
const LOCK_LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not what this program writes.
    #[error("the key file {} is damaged: {problem}; restore it from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Of a later version of this program.
    #[error("the key file {} has version {version}, and this program knows {VERSION}; use the newer program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It has been there.
    #[error(
        "the key file {} is gone, and without it everybody could call; restore it from a copy, or, to begin without keys, \
         remove {} too", path.display(), mark.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// What says that it has been there.
        mark: PathBuf,
    },
    /// Another program changes it.
    #[error("another program has been changing the keys for {} seconds ({})", (BETWEEN_LOOKS * LOCK_LOOKS).as_secs(), path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// Two keys of one label could not be told apart in the jobs they own.
    #[error("there is a key `{label}` already; revoke it first, or choose another label")]
    LabelTaken {
        /// The label.
        label: String,
    },
    /// No key to revoke.
    #[error("there is no key `{label}`{}", if *revoked { " any more: it has been revoked" } else { "" })]
    NoSuchKey {
        /// The label.
        label: String,
        /// Whether there was one.
        revoked: bool,
    },
    /// Not a label.
    #[error("the label `{}` cannot be used: {problem}", label.escape_debug())]
    Label {
        /// What was given.
        label: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The owner of the file could not read what this user would put in its place.
    #[cfg(unix)]
    #[error(
        "the key file {} belongs to another user (uid {uid}), who could not read it any more; \
         run this as that user (sudo -u '#{uid}' ...) or as root", path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        uid: u32,
    },
    /// A key of the settings and one of the file would be one owner with two limits.
    #[error(
        "there is a key `{label}` in the settings and in the key file {}, and their jobs could not be told apart; \
         take it out of the settings, or revoke that of the file with `pentimento keys revoke {label}`", path.display()
    )]
    LabelConfigured {
        /// The label.
        label: String,
        /// The file.
        path: PathBuf,
    },
    /// Too many keys.
    #[error("there are {MOST_KEYS} keys already, which is the most; remove the file to begin anew")]
    Full,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    keys: Vec<StoredKey>,
}

/// Read before anything else, so that a later version is told as one.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The key file of a data folder, be it there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    folder: PathBuf,
    path: PathBuf,
}

/// Held while the file is changed.
struct Changing(#[expect(dead_code, reason = "the lock ends with the file")] fs_err::File);

impl KeyFile {
    /// That of this folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            path: folder.join(FILE),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, the revoked and the expired ones, too. None: there never were any.
    ///
    /// # Errors
    /// Whatever does not let them be read, and that they are lost.
    pub fn keys(&self) -> Result<Option<Vec<StoredKey>>, KeyFileError> {
        self.bytes()?.map(|bytes| self.keys_in(&bytes)).transpose()
    }

    /// Makes a key and gives its secret, which nobody can find out again.
    ///
    /// # Errors
    /// A label that cannot be used or is in use, too many keys, and whatever [`KeyFile::keys`] says.
    pub fn add(&self, new: &NewKey, now: SystemTime) -> Result<String, KeyFileError> {
        check_label(&new.label).map_err(|problem| KeyFileError::Label {
            label: new.label.chars().take(LONGEST_LABEL).collect(),
            problem,
        })?;
        make_folder(&self.folder).map_err(io_failed("make", &self.folder))?;
        let _changing = self.lock()?;
        let mut keys = self.keys()?.unwrap_or_default();
        if keys.iter().any(|key| key.label == new.label && key.is_valid(now)) {
            return Err(KeyFileError::LabelTaken {
                label: new.label.clone(),
            });
        }
        // Who makes a key of a revoked label anew goes on with its jobs, and one record tells enough.
        keys.retain(|key| key.label != new.label);
        if keys.len() >= MOST_KEYS {
            return Err(KeyFileError::Full);
        }
        let secret = new_secret().map_err(io_failed("make a secret for", &self.path))?;
        keys.push(StoredKey::new(new, &secret, now));
        self.write(keys)?;
        Ok(secret)
    }

    /// Takes a key back.
    ///
    /// # Errors
    /// [`KeyFileError::NoSuchKey`], and whatever [`KeyFile::keys`] says.
    pub fn revoke(&self, label: &str, now: SystemTime) -> Result<(), KeyFileError> {
        let missing = |revoked| KeyFileError::NoSuchKey {
            label: label.chars().take(LONGEST_LABEL).collect(),
            revoked,
        };
        if self.bytes()?.is_none() {
            return Err(missing(false));
        }
        let _changing = self.lock()?;
        let mut keys = self.keys()?.unwrap_or_default();
        let key = keys.iter_mut().find(|key| key.label == label);
        match key {
            None => return Err(missing(false)),
            Some(key) if key.revoked_at.is_some() => return Err(missing(true)),
            Some(key) => key.revoked_at = Some(seconds(now)),
        }
        self.write(keys)
    }

    /// The bytes of the file, or None where there never was one.
    pub(crate) fn bytes(&self) -> Result<Option<Vec<u8>>, KeyFileError> {
        match read_regular(&self.path, LARGEST_FILE) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(fault) if fault.is_missing() => {
                let mark = fs_err::symlink_metadata(self.mark());
                match mark {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(io_failed("look at", &self.mark())(error)),
                    Ok(_) => Err(self.lost()),
                }
            }
            Err(FileFault::Io(error)) => Err(io_failed("read", &self.path)(error)),
            Err(fault @ (FileFault::NotRegular { .. } | FileFault::TooLarge { .. })) => {
                Err(self.damaged(fault.to_string()))
            }
        }
    }

    /// Whether it is certain that neither the file nor its mark is there.
    pub(crate) fn was_never_made(&self) -> bool {
        let is_missing = |path: &Path| {
            fs_err::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        is_missing(&self.path) && is_missing(&self.mark())
    }

    /// The keys in the bytes of the file.
    pub(crate) fn keys_in(&self, bytes: &[u8]) -> Result<Vec<StoredKey>, KeyFileError> {
        let version: Version =
            serde_json::from_slice(bytes).map_err(|error| self.damaged(error.to_string()))?;
        if version.version > VERSION {
            return Err(KeyFileError::Newer {
                path: self.path.clone(),
                version: version.version,
            });
        }
        let contents: Contents =
            serde_json::from_slice(bytes).map_err(|error| self.damaged(error.to_string()))?;
        for key in &contents.keys {
            check_label(&key.label).map_err(|problem| self.damaged(problem.to_owned()))?;
            if key.digest().is_none() {
                return Err(self.damaged(format!("the key `{}` has no sha256", key.label)));
            }
        }
        Ok(contents.keys)
    }

    pub(crate) fn lost(&self) -> KeyFileError {
        KeyFileError::Lost {
            path: self.path.clone(),
            mark: self.mark(),
        }
    }

    fn mark(&self) -> PathBuf {
        self.folder.join(MARK)
    }

    /// The mark last: a command that ends between the two has shown nobody a secret, and can be run again.
    fn write(&self, keys: Vec<StoredKey>) -> Result<(), KeyFileError> {
        let failed = || io_failed("write", &self.path);
        let path = self.folder.join(DRAFT);
        let mut draft = fresh(&path).map_err(io_failed("write", &path))?;
        self.give_to_owner(&draft)?;
        let contents = Contents {
            version: VERSION,
            keys,
        };
        serde_json::to_writer_pretty(&mut draft, &contents)
            .map_err(|error| failed()(std::io::Error::other(error)))?;
        draft.write_all(b"\n").map_err(failed())?;
        draft.sync_all().map_err(failed())?;
        drop(draft);
        fs_err::rename(&path, &self.path).map_err(failed())?;
        let mark = self.mark();
        fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&mark)
            .map_err(io_failed("write", &mark))?;
        // The new names are safe once their folder is.
        #[cfg(unix)]
        fs_err::File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed())?;
        Ok(())
    }

    fn lock(&self) -> Result<Changing, KeyFileError> {
        let path = self.folder.join(LOCK);
        // A pipe of this name would be waited for without end.
        if fs_err::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(io_failed("lock", &path)(std::io::Error::other("it is no file")));
        }
        let mut options = fs_err::OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        {
            use fs_err::os::unix::fs::OpenOptionsExt as _;
            // Whoever can open it can lock it, and keep a key from being revoked.
            options.mode(0o600);
        }
        let file = options.open(&path).map_err(io_failed("lock", &path))?;
        self.give_to_owner(&file)?;
        for _ in 0..LOCK_LOOKS {
            match file.file().try_lock() {
                Ok(()) => return Ok(Changing(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOOKS),
                Err(TryLockError::Error(error)) => return Err(io_failed("lock", &path)(error)),
            }
        }
        Err(KeyFileError::Busy { path })
    }

    /// A command that another user runs, by `sudo` say, must not take the keys away from the server: it could not read the
    /// new file, and a revoked key would go on.
    #[cfg(unix)]
    fn give_to_owner(&self, made: &fs_err::File) -> Result<(), KeyFileError> {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let (owner, is_known) = match fs_err::metadata(&self.path) {
            Ok(file) => (file, true),
            // Who owns the folder most likely runs the server, but need not.
            Err(_) => {
                let folder = fs_err::metadata(&self.folder);
                (folder.map_err(io_failed("look at", &self.folder))?, false)
            }
        };
        let uid = owner.uid();
        let found = made.metadata().map_err(io_failed("look at", made.path()))?;
        if found.uid() == uid || fchown(made.file(), Some(uid), Some(owner.gid())).is_ok() || !is_known {
            return Ok(());
        }
        Err(KeyFileError::Owner {
            path: self.path.clone(),
            uid,
        })
    }

    #[cfg(not(unix))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "files have no such owner here"
    )]
    fn give_to_owner(&self, _made: &fs_err::File) -> Result<(), KeyFileError> {
        Ok(())
    }

    fn damaged(&self, problem: String) -> KeyFileError {
        KeyFileError::Damaged {
            path: self.path.clone(),
            problem,
        }
    }
}

/// For its owner alone, where it is missing: it is the data folder, before the first start.
#[cfg(unix)]
fn make_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(not(unix))]
fn make_folder(path: &Path) -> std::io::Result<()> {
    fs_err::create_dir_all(path)
}

fn io_failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyFileError + use<> {
    let path = path.to_owned();
    move |source| KeyFileError::Io { what, path, source }
}

/// A new file of this name that its owner alone can read, whatever stood there: a link would lead what is written elsewhere.
fn fresh(path: &Path) -> std::io::Result<fs_err::File> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs_err::OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    {
        use fs_err::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

fn new_secret() -> std::io::Result<String> {
    let mut secret = [0_u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut secret)
        .map_err(std::io::Error::other)?;
    Ok(format!("{SECRET_PREFIX}{}", to_hex(&secret)))
}

#[cfg(test)]
mod tests;
