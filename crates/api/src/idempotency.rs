//! The caller's own name for a request, from the header `Idempotency-Key` (as Stripe has it; IETF draft
//! draft-ietf-httpapi-idempotency-key-header), and a digest that tells one request from another under the same name.

use axum::http::HeaderMap;
use pentimento_types::Idempotency;
use sha2::{Digest as _, Sha256};

use crate::dialects::json::Json;
use crate::dialects::lenient::FieldError;

/// As it is written in documents; HTTP does not care about its case.
pub(crate) const HEADER: &str = "Idempotency-Key";
/// As Stripe.
const MAX_BYTES: usize = 255;

/// The key of a request, or None.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, FieldError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let refuse = |problem: String| Err(FieldError::value(HEADER, problem));
    if values.next().is_some() {
        return refuse("must be sent once".to_owned());
    }
    let value = value.as_bytes().trim_ascii();
    // Spaces inside are allowed, since a structured string of the draft may have them.
    let readable = value.iter().all(|byte| (b' '..=b'~').contains(byte));
    match std::str::from_utf8(value) {
        Ok(key) if readable && (1..=MAX_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => refuse(format!(
            "must have 1 to {MAX_BYTES} printable ASCII characters; a random UUID is a good one"
        )),
    }
}

/// What a request is, whatever it is read as later: the call and the body as it came.
pub(crate) struct RequestDigest(Sha256);

impl RequestDigest {
    /// Of a call, whichever of its paths was taken.
    pub(crate) fn new(call: &str) -> Self {
        let mut digest = Self(Sha256::new());
        digest.add(call.as_bytes());
        digest
    }

    /// A part, of which the next is told by its length.
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// A part of a form.
    pub(crate) fn add_part(&mut self, name: &str, value: &Json) {
        self.add(name.as_bytes());
        match value {
            Json::File(bytes) => self.add(bytes),
            Json::Text(text) => self.add(text.as_bytes()),
            // A form has nothing else.
            Json::Null
            | Json::Bool(_)
            | Json::Integer(_)
            | Json::Number(_)
            | Json::List(_)
            | Json::Object(_) => self.add(&[]),
        }
    }

    /// With the key under which the request was sent.
    pub(crate) fn named(self, key: String) -> Idempotency {
        let digest = self.0.finalize();
        Idempotency {
            key,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<String>, String> {
        let headers = values.iter().map(|value| {
            let name = "idempotency-key".parse::<axum::http::HeaderName>().unwrap();
            (name, axum::http::HeaderValue::from_bytes(value).unwrap())
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        key(&map).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_a_short_text_and_sent_once() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b" once "]), Ok(Some("once".to_owned())));
        let longest = "x".repeat(255);
        assert_eq!(read(&[longest.as_bytes()]), Ok(Some(longest.clone())));
        let too_long = format!("{longest}x");
        for bad in [
            &[&b""[..]][..],
            &[b"  "],
            &[too_long.as_bytes()],
            &["\u{e9}".as_bytes()],
            &[b"\xff"],
            &[b"a\tb"],
            &[b"a", b"a"],
        ] {
            let refused = read(bad).unwrap_err();
            assert!(refused.starts_with("Idempotency-Key must"), "{refused}");
        }
    }

    #[test]
    fn calls_and_parts_are_told_from_each_other() {
        let of = |call: &str, parts: &[&str]| {
            let mut digest = RequestDigest::new(call);
            for part in parts {
                digest.add(part.as_bytes());
            }
            digest.named("k".to_owned()).digest
        };
        assert_eq!(of("a", &["b"]), of("a", &["b"]));
        assert_ne!(of("a", &["b"]), of("b", &["b"]));
        assert_ne!(of("a", &["bc", "d"]), of("a", &["b", "cd"]));
        assert_eq!(of("a", &[]).len(), 64);
    }
}
