//! Who calls: HTTP Basic, whose password is the key whatever the user is called, as `--api-auth` has it; or `Bearer`.
//!
//! Invariant: a handler gets a [`Caller`] only through this extractor, so no path leads around the check.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pentimento_types::ApiKeyId;

use super::error::A1111Error;
use crate::access::{Denied, admit};
use crate::{AppState, bearer};

/// The owner of the key that was sent; the anonymous one when no keys are configured.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) ApiKeyId);

impl FromRequestParts<AppState> for Caller {
    type Rejection = A1111Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, A1111Error> {
        let password = password(&parts.headers);
        let secret = password.as_deref().or_else(|| bearer::secret(&parts.headers));
        match admit(state, parts, secret) {
            Ok(grant) => Ok(Self(grant.owner)),
            Err(Denied::MissingKey) => Err(A1111Error::MissingKey),
            Err(Denied::WrongKey) => Err(A1111Error::WrongKey),
            Err(Denied::Fault(fault)) => Err(fault.into()),
        }
    }
}

/// What stands behind the first colon of HTTP Basic (RFC 7617). A name alone is a key, too.
fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, credentials) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // What cannot be read can be no key of ours; it is wrong, not missing.
    let text = STANDARD.decode(credentials.trim()).ok();
    let text = text
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let password =
        text.split_once(':').map_or(
            text.as_str(),
            |(user, password)| {
                if password.is_empty() { user } else { password }
            },
        );
    Some(if password.is_empty() {
        "?".to_owned()
    } else {
        password.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_password_whoever_the_user_is() {
        let read = |value: &str| {
            let headers = [(AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            password(&headers)
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for text in ["user:sk_1", ":sk_1", "sk_1:", "sk_1"] {
            assert_eq!(read(&basic(text)).as_deref(), Some("sk_1"), "{text}");
        }
        assert_eq!(read(&basic("user:with:colons")).as_deref(), Some("with:colons"));
        assert_eq!(read("basic c2tfMQ==").as_deref(), Some("sk_1"));
        for wrong in [basic(""), basic(":"), "Basic ???".to_owned()] {
            assert_eq!(read(&wrong).as_deref(), Some("?"), "{wrong}");
        }
        assert_eq!(read("Bearer sk_1"), None);
        assert_eq!(password(&HeaderMap::new()), None);
    }
}
