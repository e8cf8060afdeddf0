//! What `fuzz/` calls: a body of this dialect, from its bytes to a call.

use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;

use super::convert::{self, Call, Defaults};
use super::key_scan::KeyScan;
use super::wire;

/// Reads a body as both calls do. The first byte chooses the content type.
///
/// # Panics
/// When something that must hold for every body does not.
pub(crate) fn body(bytes: &[u8]) {
    const KINDS: [&str; 4] = [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=B",
        "",
    ];
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let kind = KINDS[usize::from(*choice) % KINDS.len()];
    // In two pieces and in one, the scan sees the same.
    let (first, second) = body.split_at(body.len() / 2);
    let mut scan = KeyScan::new();
    let in_pieces = scan.feed(first).or_else(|| scan.feed(second));
    assert_eq!(
        in_pieces,
        KeyScan::new().feed(body),
        "the key depends on how the body arrives"
    );
    for call in [Call::Img2Img, Call::Inpaint] {
        let request = Request::builder().header(CONTENT_TYPE, kind).body(());
        let (parts, ()) = request.expect("the header is a good one").into_parts();
        let Ok(fields) = wire::fields_of(parts, Bytes::copy_from_slice(body), None) else {
            return;
        };
        let defaults = Defaults {
            model: Some("demo".to_owned()),
            seed: 0,
            enhance_prompt: true,
            has_cluster: false,
        };
        if let Ok(parsed) = convert::to_call(fields, call, defaults) {
            let recipe = parsed.recipe;
            assert!((0.0..=1.0).contains(&recipe.strength), "{}", recipe.strength);
            assert!(recipe.steps >= 1 && recipe.image_count >= 1);
        }
    }
}
