//! Who calls: `key` in the body, or where the vendor's other clients put it.
//!
//! Invariant: a handler gets fields only together with a caller, from `opened_call::open`, so no path leads around the check.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use pentimento_service::{KeyGrant, KeyRing};

use super::error::ModelsLabError;
use crate::dialects::json::Json;

/// Who sends a body, as far as header and query tell; None means that the key may be inside the body. A key there that is
/// wrong is refused before the body is read.
pub(super) fn before_body(
    keys: &KeyRing,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Option<KeyGrant>, ModelsLabError> {
    if keys.is_open() {
        return Ok(Some(KeyRing::anonymous()));
    }
    // Credentials of another scheme are a proxy's in front of us, and say nothing about the key.
    let foreign = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().split_once(char::is_whitespace))
        .is_some_and(|(scheme, _)| !scheme.eq_ignore_ascii_case("bearer"));
    let Some(secret) = secret(Json::Null, headers, query) else {
        return Ok(None);
    };
    match keys.check(&secret) {
        None if !foreign => Err(ModelsLabError::WrongKey),
        found => Ok(found),
    }
}

/// What the key grants. The first place that has one counts: the body, `Authorization: Bearer` (modelslab-js),
/// a header `key` (an old Python package), the query.
pub(super) fn caller(
    keys: &KeyRing,
    body_key: Json,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<KeyGrant, ModelsLabError> {
    if keys.is_open() {
        return Ok(KeyRing::anonymous());
    }
    let secret = secret(body_key, headers, query).ok_or(ModelsLabError::MissingKey)?;
    keys.check(&secret).ok_or(ModelsLabError::WrongKey)
}

fn secret(body_key: Json, headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let in_body = match body_key {
        Json::Text(key) => Some(key),
        Json::Integer(key) => Some(key.to_string()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::File(_) | Json::List(_) | Json::Object(_) => {
            None
        }
    };
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let in_header = || {
        let value = header(AUTHORIZATION.as_str())?;
        let bearer = value
            .split_once(char::is_whitespace)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        Some(bearer.map_or(value, |(_, key)| key).to_owned())
    };
    let in_query = || {
        let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
        pairs
            .find(|(name, _)| name == "key")
            .map(|(_, key)| key.into_owned())
    };
    let some = |key: Option<String>| key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
    some(in_body)
        .or_else(|| some(in_header()))
        .or_else(|| some(header("key").map(str::to_owned)))
        .or_else(|| some(in_query()))
}

#[cfg(test)]
mod tests {
    use pentimento_types::ApiKeyId;

    use super::*;

    #[test]
    fn header_and_query_tell_before_the_body_is_read() {
        let keys = KeyRing::new([("tests".to_owned(), "sk_1".to_owned())]);
        let before = |headers: &[(&'static str, &'static str)], query: Option<&str>| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            let known = before_body(&keys, &headers, query).map_err(|error| error.to_string());
            known.map(|grant| grant.map(|grant| grant.owner))
        };
        let tests = Some(ApiKeyId::new("tests"));
        for (headers, query) in [
            (&[("authorization", "Bearer sk_1")][..], None),
            (&[("authorization", "sk_1")][..], None),
            (&[("key", "sk_1")][..], None),
            (&[][..], Some("key=sk_1")),
        ] {
            assert_eq!(before(headers, query), Ok(tests.clone()), "{headers:?}");
        }
        for (headers, query) in [
            (&[("authorization", "Bearer sk_2")][..], Some("key=sk_1")),
            (&[("key", "sk_2")][..], None),
            (&[][..], Some("key=sk_2")),
        ] {
            assert_eq!(
                before(headers, query),
                Err("Invalid API key".to_owned()),
                "{headers:?}"
            );
        }
        for headers in [
            &[][..],
            &[("authorization", "Basic sk_2")][..],
            &[("key", " ")][..],
        ] {
            assert_eq!(before(headers, None), Ok(None), "{headers:?}");
        }
        let open = KeyRing::new([]);
        let known = before_body(&open, &HeaderMap::new(), None);
        assert!(matches!(known, Ok(Some(_))));
    }

    #[test]
    fn every_place_is_looked_at_in_order() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        let all = headers(&[("authorization", "Bearer two"), ("key", "three")]);
        let body = |key: &str| Json::Text(key.to_owned());
        let query = Some("x=1&key=four");
        assert_eq!(secret(body("one"), &all, query).as_deref(), Some("one"));
        assert_eq!(secret(body(" "), &all, query).as_deref(), Some("two"));
        let named = headers(&[("key", "three")]);
        assert_eq!(secret(Json::Null, &named, query).as_deref(), Some("three"));
        assert_eq!(
            secret(Json::Null, &HeaderMap::new(), query).as_deref(),
            Some("four")
        );
        assert_eq!(secret(Json::Null, &HeaderMap::new(), None), None);
        let bare = headers(&[("authorization", "two")]);
        assert_eq!(secret(Json::Null, &bare, None).as_deref(), Some("two"));
    }
}
