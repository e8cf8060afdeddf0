//! A key as it is made, as it is stored, and what it may take. Only the SHA-256 of a secret is kept.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use pentimento_types::ApiKeyId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The longest label, in characters.
pub(crate) const LONGEST_LABEL: usize = 64;

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

/// Whether a text may be the label of a key: it stands in logs, in jobs and in tables.
///
/// # Errors
/// What is wrong with it.
pub fn check_label(label: &str) -> Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if label.is_empty() || label.len() > LONGEST_LABEL || !label.chars().all(legal) {
        return Err("the label of a key has 1 to 64 letters, digits, `-`, `_` and `.`");
    }
    if label == ApiKeyId::anonymous().as_str() {
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
    /// The record of a key that is made at this time.
    pub(crate) fn new(new: &NewKey, secret: &str, now: SystemTime) -> Self {
        let created_at = seconds(now);
        let end = |life: Duration| created_at.saturating_add(life.as_secs().max(1));
        Self {
            label: new.label.clone(),
            sha256: to_hex(&Sha256::digest(secret.as_bytes())),
            created_at,
            expires_at: new.life.map(end),
            revoked_at: None,
            jobs_at_once: new.limits.jobs_at_once,
            requests_per_minute: new.limits.requests_per_minute,
            admin: new.admin,
        }
    }

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

/// In hexadecimal, so that a double click takes all of a secret.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
