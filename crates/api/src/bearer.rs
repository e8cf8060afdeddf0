//! The key in the `Authorization` header, with or without the word `Bearer`.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// The key in the header. Python sends `Bearer KEY`, the JS client `KEY`.
pub(crate) fn secret(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?;
    // Text that is no ASCII can be no key of ours; it is wrong, not missing.
    let value = value.to_str().unwrap_or("?").trim();
    let secret = match value.split_once(char::is_whitespace) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
        _ if value.eq_ignore_ascii_case("bearer") => "",
        _ => value,
    };
    (!secret.is_empty()).then_some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_may_be_missing_and_in_any_case() {
        let read = |value: &str| {
            let headers = [(AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            secret(&headers).map(str::to_owned)
        };
        for value in ["sk_1", "Bearer sk_1", "bearer  sk_1", "BEARER\tsk_1", " sk_1 "] {
            assert_eq!(read(value).as_deref(), Some("sk_1"), "{value}");
        }
        for value in ["", " ", "Bearer", "Bearer "] {
            assert_eq!(read(value), None, "{value:?}");
        }
        assert_eq!(read("Basic sk_1").as_deref(), Some("Basic sk_1"));
        assert_eq!(secret(&HeaderMap::new()), None);
    }
}
