//! What the engine is given: a recipe with every name resolved and every input decoded.

use std::fmt;
use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::ResolvedModels;
use pentimento_types::{Inputs, Recipe, RgbImage};

use crate::{LatentSize, ModelKey};

/// A LoRA with its strength.
type Scaled = (Arc<ModelEntry>, f64);

/// Everything that the images of a job are made from, with every name resolved and every input decoded.
#[derive(Clone)]
pub struct ResolvedJob {
    /// What is asked.
    pub recipe: Arc<Recipe>,
    /// What the names in the recipe stand for.
    pub models: ResolvedModels,
    /// What it starts from, decoded, and what else it works on.
    pub images: Inputs<RgbImage>,
}

impl ResolvedJob {
    /// The weights this job runs on.
    #[must_use]
    pub fn model_key(&self) -> ModelKey {
        ModelKey::of(&self.models)
    }

    /// Whether both have the same LoRAs with the same strengths. Allocates nothing.
    pub(crate) fn has_loras_of(&self, other: &Self) -> bool {
        let (own, its) = (&self.models.loras, &other.models.loras);
        let is_same = |((one, strength), (other, its)): (&Scaled, &Scaled)| {
            one.name == other.name && strength.to_bits() == its.to_bits()
        };
        own.len() == its.len() && own.iter().zip(its).all(is_same)
    }

    /// What its decoded images take: those it brings, and those it will be given. In bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        let brought = self.images.iter().map(|(_, image)| image.size_bytes());
        self.recipe.image_bytes(self.images.size().rgb_bytes(), brought)
    }

    /// The latent size, known before the model is loaded.
    #[must_use]
    pub fn latent_size(&self) -> LatentSize {
        LatentSize::of_image(self.images.size())
    }
}

// By hand, because a recipe is long and pixels have no useful text.
impl fmt::Debug for ResolvedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolvedJob")
            .field("model", &self.model_key())
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}
