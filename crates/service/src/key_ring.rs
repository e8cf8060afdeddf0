//! The keys that may call, and the comparison of what a caller sends with them: keys of the settings, and keys of the data
//! folder, which come and go while the server runs.
//!
//! Invariant: a server that has asked for keys never stops doing so by itself; a key file that cannot be read leaves the
//! keys as they were, and closes a server that was open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use pentimento_types::{ApiKeyId, Clock, SystemClock};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::key_file::{KeyFile, KeyFileError};
use crate::key_record::{KeyLimits, StoredKey};

/// What a caller with a right key is, and may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    /// Whose jobs it makes and sees.
    pub owner: ApiKeyId,
    /// Whether it may do what concerns all callers: models in memory, metrics.
    pub admin: bool,
    /// What it may take.
    pub limits: KeyLimits,
}

/// All keys that may call the server. Keeps hashes, never the secrets; `Debug` shows the labels only.
///
/// The secrets of key files are random numbers of 256 bits, so that one round of SHA-256 is enough: there is nothing to
/// guess. Keys of the settings are in the settings as they are.
pub struct KeyRing {
    configured: Vec<Key>,
    stored: RwLock<Stored>,
    file: Option<KeyFile>,
    /// What holds for keys that say nothing themselves.
    defaults: KeyLimits,
    /// Whether the file could not be read the last time.
    is_stale: AtomicBool,
    clock: Arc<dyn Clock>,
}

/// What the file said when it could be read.
#[derive(Default)]
struct Stored {
    keys: Vec<Key>,
    /// Whether there is a file, also one whose keys are all revoked.
    is_there: bool,
    /// As they were read the last time that they could be.
    bytes: Option<Vec<u8>>,
    /// Labels of keys that are left out, because the settings have them too.
    doubled: Vec<String>,
}

struct Key {
    digest: [u8; 32],
    grant: KeyGrant,
    expires_at: Option<SystemTime>,
}

impl Key {
    fn of(stored: &StoredKey) -> Option<Self> {
        Some(Self {
            digest: stored.digest()?,
            grant: KeyGrant {
                owner: ApiKeyId::new(&stored.label),
                admin: stored.admin,
                limits: stored.limits(),
            },
            expires_at: stored.expires_at(),
        })
    }
}

impl KeyRing {
    /// Takes pairs of a label and a secret, which may do everything. A server without keys is open.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        let key = |(label, secret): (String, String)| Key {
            digest: digest(&secret),
            grant: KeyGrant {
                owner: ApiKeyId::new(label),
                admin: true,
                limits: KeyLimits::default(),
            },
            expires_at: None,
        };
        Self {
            configured: keys.into_iter().map(key).collect(),
            stored: RwLock::default(),
            file: None,
            defaults: KeyLimits::default(),
            is_stale: AtomicBool::new(false),
            clock: Arc::new(SystemClock),
        }
    }

    /// With the keys of a file beside them.
    ///
    /// # Errors
    /// When the file is there and cannot be read, has been there and is gone, or has a key of the settings' label.
    pub fn with_file(self, file: KeyFile) -> Result<Self, KeyFileError> {
        let ring = Self {
            file: Some(file),
            ..self
        };
        ring.refresh()?;
        let doubled = ring.stored().doubled.first().cloned();
        if let (Some(label), Some(file)) = (doubled, &ring.file) {
            return Err(KeyFileError::LabelConfigured {
                label,
                path: file.path().to_owned(),
            });
        }
        Ok(ring)
    }

    /// With limits for the keys that have none of their own.
    #[must_use]
    pub fn with_defaults(self, defaults: KeyLimits) -> Self {
        Self { defaults, ..self }
    }

    /// With another clock, which tells when keys expire.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Reads the file anew, and says whether anything has changed. On an error the keys stay as they were, and who asked
    /// for none asks for one, unless the file was certainly never there. A key of a configured label is left out.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or has been there and is gone.
    pub fn refresh(&self) -> Result<bool, KeyFileError> {
        let Some(file) = &self.file else { return Ok(false) };
        let read = self.read(file);
        if read.is_err() && !file.was_never_made() {
            // Somebody wants keys to be asked for, whichever they are.
            let mut stored = self.stored.write().unwrap_or_else(PoisonError::into_inner);
            stored.is_there = true;
        }
        self.is_stale.store(read.is_err(), Ordering::Relaxed);
        read
    }

    fn read(&self, file: &KeyFile) -> Result<bool, KeyFileError> {
        let Some(bytes) = file.bytes()? else {
            // It cannot be told from a file that somebody has lost together with its mark.
            return if self.stored().is_there {
                Err(file.lost())
            } else {
                Ok(false)
            };
        };
        if self.stored().bytes.as_ref() == Some(&bytes) {
            return Ok(false);
        }
        let keys = file.keys_in(&bytes)?;
        let valid = keys.iter().filter(|key| key.revoked_at.is_none());
        let is_configured =
            |key: &&StoredKey| (self.configured.iter()).any(|own| own.grant.owner.as_str() == key.label);
        let (doubled, valid): (Vec<_>, Vec<_>) = valid.partition(is_configured);
        let keys = valid.into_iter().filter_map(Key::of).collect();
        let doubled = doubled.into_iter().map(|key| key.label.clone()).collect();
        let mut stored = self.stored.write().unwrap_or_else(PoisonError::into_inner);
        *stored = Stored {
            keys,
            is_there: true,
            bytes: Some(bytes),
            doubled,
        };
        Ok(true)
    }

    /// Labels of keys of the file that do not count, because the settings have keys of the same labels.
    pub(crate) fn doubled(&self) -> Vec<String> {
        self.stored().doubled.clone()
    }

    /// The file whose keys are taken.
    #[must_use]
    pub const fn file(&self) -> Option<&KeyFile> {
        self.file.as_ref()
    }

    /// Whether the file could not be read the last time, so that the keys may be old ones.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// How many keys there are, expired ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.configured.len() + self.stored().keys.len()
    }

    /// Whether there are no keys and never were, so that everybody who reaches the server may use it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.configured.is_empty() && !self.stored().is_there
    }

    /// What the key that `secret` is grants, or None. Takes the same time for every wrong secret and every place in the
    /// ring: all hashes are compared, in constant time, without stopping at a hit.
    #[must_use]
    pub fn check(&self, secret: &str) -> Option<KeyGrant> {
        let sent = digest(secret);
        let stored = self.stored();
        let none = u64::MAX;
        let mut found = none;
        for (index, key) in (0_u64..).zip(self.configured.iter().chain(&stored.keys)) {
            let same: Choice = key.digest.as_slice().ct_eq(sent.as_slice());
            found = u64::conditional_select(&found, &index, same);
        }
        let index = usize::try_from(found).ok()?;
        let key = self.configured.iter().chain(&stored.keys).nth(index)?;
        if key.expires_at.is_some_and(|end| end <= self.clock.wall()) {
            return None;
        }
        Some(KeyGrant {
            limits: key.grant.limits.or(self.defaults),
            ..key.grant.clone()
        })
    }

    /// What a caller of an open server is.
    #[must_use]
    pub fn anonymous() -> KeyGrant {
        KeyGrant {
            owner: ApiKeyId::anonymous(),
            admin: true,
            limits: KeyLimits::default(),
        }
    }

    /// How many unfinished jobs this owner may have. Callers without keys cannot be told apart, and have no such bound.
    #[must_use]
    pub fn jobs_at_once(&self, owner: &ApiKeyId) -> Option<usize> {
        if *owner == ApiKeyId::anonymous() {
            return None;
        }
        let stored = self.stored();
        let mut keys = self.configured.iter().chain(&stored.keys);
        let own = keys
            .find(|key| key.grant.owner == *owner)
            .map_or(KeyLimits::default(), |key| key.grant.limits);
        let most = own.or(self.defaults).jobs_at_once?;
        Some(usize::try_from(most.get()).unwrap_or(usize::MAX))
    }

    fn stored(&self) -> RwLockReadGuard<'_, Stored> {
        self.stored.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stored = self.stored();
        let keys = self.configured.iter().chain(&stored.keys);
        f.debug_list()
            .entries(keys.map(|key| key.grant.owner.as_str()))
            .finish()
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use pentimento_types::ManualClock;

    use super::*;
    use crate::key_record::NewKey;

    fn owner(ring: &KeyRing, secret: &str) -> Option<ApiKeyId> {
        ring.check(secret).map(|grant| grant.owner)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_a_configured_secret_is_accepted_and_debug_never_shows_it() {
        let pair = |label: &str, secret: &str| (label.to_owned(), secret.to_owned());
        let ring = KeyRing::new([pair("alice", "sk-one"), pair("bob", "sk-two")]);
        assert_eq!(owner(&ring, "sk-one"), Some(ApiKeyId::new("alice")));
        assert_eq!(owner(&ring, "sk-two"), Some(ApiKeyId::new("bob")));
        for wrong in ["", "sk-", "sk-one ", "SK-ONE", "sk-three"] {
            assert_eq!(ring.check(wrong), None, "{wrong}");
        }
        assert!(!ring.is_open());
        assert_eq!(format!("{ring:?}"), r#"["alice", "bob"]"#);
    }

    #[test]
    fn a_ring_without_keys_is_open_and_knows_nobody() {
        let ring = KeyRing::new([]);
        assert!(ring.is_open());
        assert_eq!(ring.check(""), None);
    }

    #[test]
    fn keys_come_and_go_while_the_ring_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        let ring = KeyRing::new([]).with_file(file.clone()).unwrap();
        assert!(ring.is_open());
        let one = file.add(&NewKey::named("one"), at(1)).unwrap();
        assert!(ring.refresh().unwrap() && !ring.is_open());
        assert_eq!(owner(&ring, &one), Some(ApiKeyId::new("one")));
        let two = file.add(&NewKey::named("two"), at(2)).unwrap();
        assert!(ring.refresh().unwrap());
        assert!(!ring.refresh().unwrap(), "nothing has changed since");
        file.revoke("one", at(3)).unwrap();
        assert!(ring.refresh().unwrap());
        assert_eq!(
            (owner(&ring, &one), owner(&ring, &two)),
            (None, Some(ApiKeyId::new("two")))
        );
        file.revoke("two", at(4)).unwrap();
        assert!(ring.refresh().unwrap());
        assert!(
            !ring.is_open() && ring.check(&two).is_none(),
            "the last key gone lets nobody in"
        );
        assert!(!KeyRing::new([]).with_file(file).unwrap().is_open());
    }

    #[test]
    fn a_file_that_cannot_be_read_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        let secret = file.add(&NewKey::named("one"), at(1)).unwrap();
        let ring = KeyRing::new([]).with_file(file.clone()).unwrap();
        let whole = fs_err::read(file.path()).unwrap();
        // Half-written by another program, at every byte, and a newer version's.
        let halves = (0..whole.len()).map(|end| whole[..end].to_vec());
        let newer = br#"{"version": 2, "anything": []}"#.to_vec();
        for text in halves.chain([newer]) {
            fs_err::write(file.path(), &text).unwrap();
            // What white space at the end is cut off is whole.
            if ring.refresh().is_ok() {
                assert!(whole[text.len()..].trim_ascii().is_empty());
                continue;
            }
            assert!(ring.is_stale() && !ring.is_open());
            assert!(owner(&ring, &secret).is_some(), "the old keys stay");
            assert!(KeyRing::new([]).with_file(file.clone()).is_err());
        }
        fs_err::remove_file(file.path()).unwrap();
        assert!(ring.refresh().is_err() && owner(&ring, &secret).is_some());
        let lost = KeyRing::new([]).with_file(file.clone()).unwrap_err().to_string();
        assert!(
            lost.contains("keys.json") && lost.contains("keys.required"),
            "{lost}"
        );
        // Together with its mark: no server that runs opens for that.
        fs_err::remove_file(folder.path().join("keys.required")).unwrap();
        assert!(ring.refresh().is_err() && owner(&ring, &secret).is_some() && !ring.is_open());
        fs_err::write(file.path(), &whole).unwrap();
        assert!(ring.refresh().is_ok() && !ring.is_stale());
    }

    #[test]
    fn a_file_that_was_never_read_closes_an_open_ring() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        let ring = KeyRing::new([]).with_file(file.clone()).unwrap();
        // No file, for every user, also for root.
        fs_err::create_dir(file.path()).unwrap();
        assert!(ring.refresh().is_err() && !ring.is_open() && ring.check("").is_none());
        fs_err::remove_dir(file.path()).unwrap();
        assert!(ring.refresh().is_err() && !ring.is_open(), "it stays closed");
        // Nor does a file without anything in it count as one that was read.
        fs_err::write(file.path(), "").unwrap();
        assert!(ring.refresh().is_err() && ring.refresh().is_err());
        fs_err::remove_file(file.path()).unwrap();
        let secret = file.add(&NewKey::named("one"), at(1)).unwrap();
        assert!(ring.refresh().unwrap() && owner(&ring, &secret).is_some());
    }

    #[test]
    fn a_label_of_the_settings_is_refused_at_the_start_and_left_out_later() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        let configured = || KeyRing::new([("alice".to_owned(), "sk".to_owned())]);
        let ring = configured().with_file(file.clone()).unwrap();
        let [alice, bob] = ["alice", "bob"].map(|label| file.add(&NewKey::named(label), at(1)).unwrap());
        assert!(ring.refresh().unwrap());
        assert_eq!(owner(&ring, &alice), None);
        assert_eq!(owner(&ring, &bob), Some(ApiKeyId::new("bob")));
        assert_eq!(owner(&ring, "sk"), Some(ApiKeyId::new("alice")));
        assert_eq!(ring.doubled(), ["alice"]);
        let refused = configured().with_file(file.clone()).unwrap_err().to_string();
        assert!(
            refused.contains("alice") && refused.contains("keys.json"),
            "{refused}"
        );
        file.revoke("alice", at(2)).unwrap();
        assert!(ring.refresh().unwrap() && ring.doubled().is_empty());
        assert!(configured().with_file(file).is_ok());
    }

    #[test]
    fn a_key_expires_by_the_clock_of_the_wall() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        let clock = Arc::new(ManualClock::new(at(1000)));
        let new = NewKey {
            life: Some(Duration::from_secs(60)),
            ..NewKey::named("brief")
        };
        let secret = file.add(&new, at(1000)).unwrap();
        let ring = KeyRing::new([])
            .with_clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .with_file(file)
            .unwrap();
        clock.advance(Duration::from_secs(59));
        assert!(ring.check(&secret).is_some());
        clock.advance(Duration::from_secs(1));
        assert!(ring.check(&secret).is_none());
    }

    #[test]
    fn a_key_has_its_own_limits_or_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::in_folder(folder.path());
        let [three, five, nine] = [3, 5, 9].map(NonZeroU32::new);
        let new = NewKey {
            limits: KeyLimits {
                jobs_at_once: three,
                requests_per_minute: None,
            },
            ..NewKey::named("own")
        };
        let secret = file.add(&new, at(1)).unwrap();
        let ring = KeyRing::new([("plain".to_owned(), "sk".to_owned())]);
        let ring = ring.with_file(file).unwrap().with_defaults(KeyLimits {
            jobs_at_once: five,
            requests_per_minute: nine,
        });
        let grant = ring.check(&secret).unwrap();
        assert!(!grant.admin);
        assert_eq!(
            grant.limits,
            KeyLimits {
                jobs_at_once: three,
                requests_per_minute: nine
            }
        );
        let plain = ring.check("sk").unwrap();
        assert!(plain.admin && plain.limits.jobs_at_once == five);
        let of = |label: &str| ring.jobs_at_once(&ApiKeyId::new(label));
        assert_eq!((of("own"), of("plain"), of("gone")), (Some(3), Some(5), Some(5)));
        assert_eq!(ring.jobs_at_once(&ApiKeyId::anonymous()), None);
    }
}
