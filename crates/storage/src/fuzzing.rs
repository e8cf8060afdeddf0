//! The door for `fuzz/`, which is there when it builds this crate, and in tests, which run its corpus.

use std::time::{Duration, SystemTime};

use pentimento_types::ImageKey;

use crate::LinkSigner;

/// The path of a link: nobody without the secret makes one, and what is changed does not open.
///
/// # Panics
/// When something that must hold for every path does not.
pub fn link(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let signer = LinkSigner::new([7; 32]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    assert!(
        signer.verify(text, now).is_err(),
        "{text:?} opens without a signature"
    );
    // A good link with a part of the text in its place.
    if let Some(key) = ImageKey::from_link(text) {
        let good = signer.sign(&key, now + Duration::from_secs(1));
        assert_eq!(signer.verify(&good, now).as_ref(), Ok(&key));
        assert!(signer.verify(&format!("{good}{text}"), now).is_err());
        assert!(LinkSigner::new([8; 32]).verify(&good, now).is_err());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_holds() {
        pentimento_testkit::each_fuzzed("link", super::link);
    }
}
