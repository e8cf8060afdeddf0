//! For unit tests that look at a few fields of a recipe.

use pentimento_types::{ModelId, Recipe, SchedulerChoice};

/// Two images, four steps at half strength, without guidance.
pub(crate) fn sample_recipe() -> Recipe {
    Recipe {
        model: ModelId::new("tiny"),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: String::new(),
        negative_prompt: None,
        image_count: 2,
        steps: 4,
        strength: 0.5,
        guidance_scale: 1.0,
        seed: 1,
        clip_skip: 1,
        token_merging: false,
        scheduler: SchedulerChoice::default(),
        framing: None,
        soft_edge: 0,
        differential_diffusion: false,
        keeps_everything: false,
        ip_adapter: None,
    }
}
