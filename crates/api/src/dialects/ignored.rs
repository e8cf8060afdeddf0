//! The header that names the fields of a body which had no effect.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::lenient::shorten;

/// Exposed to web pages by the CORS layer.
const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-pentimento-ignored-fields");

/// The header with the first names, escaped; none when nothing was ignored.
pub(crate) fn ignored_header(names: &[String]) -> HeaderMap {
    let shown: Vec<String> = names
        .iter()
        .take(16)
        .map(|name| shorten(name).escape_default().to_string())
        .collect();
    let value = HeaderValue::from_str(&shown.join(", "))
        .ok()
        .filter(|_| !names.is_empty());
    value.map(|value| (IGNORED_FIELDS, value)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_ignored_fields_is_always_a_legal_header() {
        assert!(ignored_header(&[]).is_empty());
        let header = ignored_header(&["width".to_owned(), "a\r\nb: c é".to_owned(), "x".repeat(500)]);
        let value = header[&IGNORED_FIELDS].to_str().unwrap();
        assert!(value.starts_with("width, a\\r\\nb: c \\u{e9}, xxx"), "{value}");
        assert!(value.len() < 200);
    }
}
