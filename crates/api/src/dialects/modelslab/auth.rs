//! Who calls: `key` in the body, or where the vendor's other clients put it.
//!
//! Invariant: a handler gets fields only together with a caller, from `routes::open`, so no path leads around the check.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use pentimento_types::ApiKeyId;

use super::error::ModelsLabError;
use crate::AppState;
use crate::dialects::json::Json;

/// The owner of the key. The first place that has one counts: the body, `Authorization: Bearer` (modelslab-js),
/// a header `key` (an old Python package), the query.
pub(super) fn caller(
    app: &AppState,
    body_key: Json,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<ApiKeyId, ModelsLabError> {
    if app.keys.is_open() {
        return Ok(ApiKeyId::anonymous());
    }
    let secret = secret(body_key, headers, query).ok_or(ModelsLabError::MissingKey)?;
    app.keys.check(&secret).ok_or(ModelsLabError::WrongKey)
}

fn secret(body_key: Json, headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let in_body = match body_key {
        Json::Text(key) => Some(key),
        Json::Integer(key) => Some(key.to_string()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => None,
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
    use super::*;

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
