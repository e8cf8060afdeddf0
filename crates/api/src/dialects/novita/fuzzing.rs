//! What `fuzz/` calls: a body of this dialect, from its bytes to a call.

use super::convert::to_call;
use super::wire::LcmImg2ImgBody;

/// Reads a body as `POST /v3/lcm-img2img` does.
///
/// # Panics
/// When something that must hold for every body does not.
pub(crate) fn body(bytes: &[u8]) {
    let Ok(body) = LcmImg2ImgBody::parse(bytes) else {
        return;
    };
    if let Ok(call) = to_call(body, 0) {
        let recipe = call.recipe;
        assert!((0.0..=1.0).contains(&recipe.strength), "{}", recipe.strength);
        assert!((1..=8).contains(&recipe.steps) && (1..=16).contains(&recipe.image_count));
    }
}
