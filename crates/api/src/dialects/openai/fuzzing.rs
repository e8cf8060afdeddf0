//! What `fuzz/` calls: a body of this dialect, from its bytes to a call.

use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use pentimento_service::Catalog;

use super::body::fields;
use super::convert::{Call, to_call};

/// Reads a body as all three calls do. The first byte chooses the content type.
///
/// # Panics
/// When something that must hold for every body does not.
pub(crate) fn body(bytes: &[u8]) {
    const KINDS: [&str; 2] = ["application/json", "multipart/form-data; boundary=B"];
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let kind = HeaderValue::from_static(KINDS[usize::from(*choice) % KINDS.len()]);
    let headers: HeaderMap = [(CONTENT_TYPE, kind)].into_iter().collect();
    let catalog = Catalog::embedded_only();
    for call in Call::ALL {
        let Ok(fields) = fields(&headers, &Bytes::copy_from_slice(body), (call.tables(), None)) else {
            continue;
        };
        if let Ok(parsed) = to_call(fields, call, (&catalog, 0)) {
            let recipe = parsed.recipe;
            assert!((0.0..=1.0).contains(&recipe.strength), "{}", recipe.strength);
            assert!((1..=10).contains(&recipe.image_count) && recipe.steps >= 1);
            assert!(
                parsed
                    .delivery
                    .jpeg_quality
                    .is_none_or(|quality| (1..=100).contains(&quality))
            );
        }
    }
}
