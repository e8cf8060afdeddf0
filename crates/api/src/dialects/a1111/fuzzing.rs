//! What `fuzz/` calls: a body of this dialect, from its bytes to jobs.

use pentimento_service::Catalog;

use super::convert::{Call, Defaults, to_call};
use super::options::Options;

/// Reads a body as `POST /sdapi/v1/img2img` does, and as `txt2img` does.
///
/// # Panics
/// When something that must hold for every body does not.
pub(crate) fn body(bytes: &[u8]) {
    let catalog = Catalog::embedded_only();
    for call in [Call::Img2Img, Call::Txt2Img] {
        let Ok(fields) = call.parse(bytes) else { return };
        let defaults = Defaults {
            catalog: &catalog,
            options: Options::default(),
            seed: 0,
        };
        let Ok(call) = to_call(fields, call, defaults) else {
            continue;
        };
        let images: u32 = call.parts.iter().map(|part| part.recipe.image_count).sum();
        assert!((1..=16).contains(&images), "{images}");
        for part in &call.parts {
            assert!(
                (0.0..=1.0).contains(&part.recipe.strength),
                "{}",
                part.recipe.strength
            );
            assert!((1..=150).contains(&part.recipe.steps), "{}", part.recipe.steps);
        }
    }
}
