//! The configured keys, and the comparison of what a caller sends with them.

use pentimento_types::ApiKeyId;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// All keys that may call the server. Keeps hashes, never the secrets; `Debug` shows the labels only.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<(ApiKeyId, [u8; 32])>,
}

impl KeyRing {
    /// Takes pairs of a label and a secret. A server without keys is open.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        let keys = keys
            .into_iter()
            .map(|(label, secret)| (ApiKeyId::new(label), digest(&secret)))
            .collect();
        Self { keys }
    }

    /// Whether no keys are configured, so that everybody who reaches the server may use it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that `secret` is, or None. Takes the same time for every wrong secret and every place in the ring:
    /// all hashes are compared, in constant time, without stopping at a hit.
    #[must_use]
    pub fn check(&self, secret: &str) -> Option<ApiKeyId> {
        let sent = digest(secret);
        let none = u64::MAX;
        let mut found = none;
        for (index, (_, key)) in (0_u64..).zip(&self.keys) {
            let same: Choice = key.as_slice().ct_eq(sent.as_slice());
            found = u64::conditional_select(&found, &index, same);
        }
        let index = usize::try_from(found).ok()?;
        self.keys.get(index).map(|(label, _)| label.clone())
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels = self.keys.iter().map(|(label, _)| label.as_str());
        f.debug_list().entries(labels).finish()
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_configured_secret_is_accepted_and_debug_never_shows_it() {
        let pair = |label: &str, secret: &str| (label.to_owned(), secret.to_owned());
        let ring = KeyRing::new([pair("alice", "sk-one"), pair("bob", "sk-two")]);
        assert_eq!(ring.check("sk-one"), Some(ApiKeyId::new("alice")));
        assert_eq!(ring.check("sk-two"), Some(ApiKeyId::new("bob")));
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
}
