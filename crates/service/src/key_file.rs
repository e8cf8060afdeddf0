//! Keys on the disk of the data folder: made and revoked by a command while the server runs, and read again by the server.
//!
//! Only the SHA-256 of a secret is stored. The file is replaced in one step, readable by its owner only, and changed by
//! one program at a time. Beside it stands a mark that keys are asked for: a file that is gone while its mark is there was
//! lost, and opens no server.

use std::fs::TryLockError;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pentimento_types::{FileFault, read_regular};
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Every secret begins so, for people and for programs that look for secrets where none should be.
pub const SECRET_PREFIX: &str = "pnt_";
/// Keys that the file may hold, revoked ones included.
const MOST_KEYS: usize = 10_000;
/// The longest label, in characters.
const LONGEST_LABEL: usize = 64;

const FILE: &str = "keys.json";
const MARK: &str = "keys.required";
const LOCK: &str = "keys.lock";
const VERSION: u32 = 1;
/// A key takes about 250 bytes.
const LARGEST_FILE: u64 = 8 << 20;
/// How long another program may be busy with the file.
const LOCK_LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What one key may take; None is without a bound of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Unfinished jobs at once.
    pub jobs_at_once: Option<NonZeroU32>,
    /// Calls a minute, but for those that only ask how far something is.
    pub requests_per_minute: Option<NonZeroU32>,
}

impl KeyLimits {
    /// These, and where they say nothing, the others.
    pub(crate) const fn or(self, others: Self) -> Self {
        Self {
            jobs_at_once: match self.jobs_at_once {
                None => others.jobs_at_once,
                own => own,
            },
            requests_per_minute: match self.requests_per_minute {
                None => others.requests_per_minute,
                own => own,
            },
        }
    }
}

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
    /// Too many keys.
    #[error("there are {MOST_KEYS} keys already, which is the most; remove the file to begin anew")]
    Full,
}

/// Whether a text may be the label of a key: it stands in logs, in jobs and in tables.
///
/// # Errors
/// What is wrong with it.
pub fn check_label(label: &str) -> Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if label.is_empty() || label.len() > LONGEST_LABEL || !label.chars().all(legal) {
        return Err("the label of a key has 1 to 64 letters, digits, `-`, `_` and `.`");
    }
    if label == pentimento_types::ApiKeyId::anonymous().as_str() {
        return Err("callers without a key have the label `anonymous`");
    }
    Ok(())
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Its name, and the owner of its jobs.
    pub label: String,
    /// How long it holds; None is until it is revoked.
    pub life: Option<Duration>,
    /// What it may take.
    pub limits: KeyLimits,
    /// Whether it may do what concerns all callers.
    pub admin: bool,
}

impl NewKey {
    /// A key for calls, without an end and without limits of its own.
    pub fn named(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            life: None,
            limits: KeyLimits::default(),
            admin: false,
        }
    }
}

/// A key as it is stored. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// Its name.
    pub label: String,
    /// Of the secret, in hexadecimal.
    sha256: String,
    /// When it was made.
    pub created_at: u64,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jobs_at_once: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<NonZeroU32>,
    /// Whether it may do what concerns all callers.
    #[serde(default)]
    pub admin: bool,
}

impl StoredKey {
    /// What it may take.
    #[must_use]
    pub const fn limits(&self) -> KeyLimits {
        KeyLimits {
            jobs_at_once: self.jobs_at_once,
            requests_per_minute: self.requests_per_minute,
        }
    }

    /// When it ends by itself. A time that no clock can show is never.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_at?))
    }

    /// Whether it can be used at this time.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.revoked_at.is_none() && self.expires_at().is_none_or(|end| now < end)
    }

    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        if self.sha256.len() != 64 || !self.sha256.is_ascii() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(self.sha256.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(digest)
    }
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
        fs_err::create_dir_all(&self.folder).map_err(self.failed("make", &self.folder))?;
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
        let secret = new_secret().map_err(self.failed("make a secret for", &self.path))?;
        let now_seconds = seconds(now);
        keys.push(StoredKey {
            label: new.label.clone(),
            sha256: to_hex(&Sha256::digest(secret.as_bytes())),
            created_at: now_seconds,
            expires_at: new
                .life
                .map(|life| now_seconds.saturating_add(life.as_secs().max(1))),
            revoked_at: None,
            jobs_at_once: new.limits.jobs_at_once,
            requests_per_minute: new.limits.requests_per_minute,
            admin: new.admin,
        });
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
                    Err(error) => Err(self.failed("look at", &self.mark())(error)),
                    Ok(_) => Err(self.lost()),
                }
            }
            Err(FileFault::Io(error)) => Err(self.failed("read", &self.path)(error)),
            Err(fault @ (FileFault::NotRegular { .. } | FileFault::TooLarge { .. })) => {
                Err(self.damaged(fault.to_string()))
            }
        }
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

    /// The mark first: a server that reads between the two asks for keys that nobody has yet.
    fn write(&self, keys: Vec<StoredKey>) -> Result<(), KeyFileError> {
        let failed = || self.failed("write", &self.path);
        let mark = self.mark();
        fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&mark)
            .map_err(self.failed("write", &mark))?;
        // Made with mode 0600 by the library.
        let mut draft = tempfile::NamedTempFile::new_in(&self.folder).map_err(failed())?;
        let contents = Contents {
            version: VERSION,
            keys,
        };
        serde_json::to_writer_pretty(&mut draft, &contents)
            .map_err(|error| failed()(std::io::Error::other(error)))?;
        draft.write_all(b"\n").map_err(failed())?;
        draft.as_file().sync_all().map_err(failed())?;
        draft.persist(&self.path).map_err(|error| failed()(error.error))?;
        // The new name is safe once its folder is.
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
            return Err(self.failed("lock", &path)(std::io::Error::other("it is no file")));
        }
        let file = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(self.failed("lock", &path))?;
        for _ in 0..LOCK_LOOKS {
            match file.file().try_lock() {
                Ok(()) => return Ok(Changing(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_LOOKS),
                Err(TryLockError::Error(error)) => return Err(self.failed("lock", &path)(error)),
            }
        }
        Err(KeyFileError::Busy { path })
    }

    fn failed(&self, what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyFileError + use<> {
        let path = path.to_owned();
        move |source| KeyFileError::Io { what, path, source }
    }

    fn damaged(&self, problem: String) -> KeyFileError {
        KeyFileError::Damaged {
            path: self.path.clone(),
            problem,
        }
    }
}

fn new_secret() -> std::io::Result<String> {
    let mut secret = [0_u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut secret)
        .map_err(std::io::Error::other)?;
    Ok(format!("{SECRET_PREFIX}{}", to_hex(&secret)))
}

/// In hexadecimal, so that a double click takes all of a secret.
fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn a_secret_is_shown_once_and_only_its_hash_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(&folder.path().join("new"));
        assert_eq!(file.keys().unwrap(), None);
        let secret = file.add(&NewKey::named("alice"), now()).unwrap();
        assert!(secret.starts_with("pnt_") && secret.len() == 68, "{secret}");
        let text = fs_err::read_to_string(file.path()).unwrap();
        assert!(
            !text.contains(&secret[4..]) && text.contains("\"alice\""),
            "{text}"
        );
        let keys = file.keys().unwrap().unwrap();
        assert_eq!(keys[0].digest(), Some(Sha256::digest(secret.as_bytes()).into()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs_err::metadata(file.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn keys_that_are_made_at_the_same_time_are_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let make = |number: u32| {
            let file = KeyFile::in_folder(folder.path());
            move || file.add(&NewKey::named(format!("key-{number}")), now()).unwrap()
        };
        let secrets: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(make(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let keys = KeyFile::in_folder(folder.path()).keys().unwrap().unwrap();
        let digest = |secret: &String| Some(Sha256::digest(secret.as_bytes()).into());
        assert!(
            secrets
                .iter()
                .all(|secret| keys.iter().any(|key| key.digest() == digest(secret)))
        );
        let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 3, "no draft is left: {left:?}");
    }

    #[test]
    fn a_label_is_used_once_until_its_key_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        assert!(matches!(
            file.revoke("alice", now()),
            Err(KeyFileError::NoSuchKey { revoked: false, .. })
        ));
        let first = file.add(&NewKey::named("alice"), now()).unwrap();
        assert!(matches!(
            file.add(&NewKey::named("alice"), now()),
            Err(KeyFileError::LabelTaken { .. })
        ));
        file.revoke("alice", now()).unwrap();
        assert!(matches!(
            file.revoke("alice", now()),
            Err(KeyFileError::NoSuchKey { revoked: true, .. })
        ));
        let second = file.add(&NewKey::named("alice"), now()).unwrap();
        assert_ne!(first, second);
        assert_eq!(file.keys().unwrap().unwrap().len(), 1);
        let brief = NewKey {
            life: Some(Duration::from_secs(1)),
            ..NewKey::named("bob")
        };
        file.add(&brief, now()).unwrap();
        assert!(file.add(&brief, now()).is_err());
        assert!(file.add(&brief, now() + Duration::from_secs(1)).is_ok());
        for label in ["", "a b", "anonymous", "ä", "a\nb", &"x".repeat(65)] {
            let refused = file.add(&NewKey::named(label), now());
            assert!(matches!(refused, Err(KeyFileError::Label { .. })), "{label:?}");
        }
    }
}
