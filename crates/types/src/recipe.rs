//! What decides the pixels of a job's images, beside the input images and the weights themselves.
//!
//! A dialect builds it and checks every range; nothing inside checks it again.

use serde::{Deserialize, Serialize};

use crate::{InputRole, ModelId, SchedulerChoice, Size};

/// A LoRA by name, with its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraRef {
    /// Name in the catalogue.
    pub model: ModelId,
    /// 1.0 applies it as trained.
    pub strength: f64,
}

/// A textual inversion by name; its token is written in the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingRef {
    /// Name in the catalogue.
    pub model: ModelId,
}

/// An IP-Adapter by name, which shows the model the image in the role [`InputRole::IpAdapter`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpAdapterRef {
    /// Name in the catalogue.
    pub model: ModelId,
    /// How much its image counts beside the prompt: 1 as trained, 0 not at all.
    pub scale: f64,
}

/// The values of one request after conversion from a dialect. Valid by construction; the numbers are those that will be
/// used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The checkpoint, as the caller named it.
    pub model: ModelId,
    /// Another VAE than the checkpoint's own.
    pub vae: Option<ModelId>,
    /// LoRAs in the caller's order.
    pub loras: Vec<LoraRef>,
    /// Textual inversions in the caller's order.
    pub embeddings: Vec<EmbeddingRef>,
    /// What the image should show.
    pub prompt: String,
    /// What it should not show. No text and an empty one are two things: what stands for the first is the checkpoint's to
    /// say.
    pub negative_prompt: Option<String>,
    /// How many images, at least 1. Image k uses `seed + k`.
    pub image_count: u32,
    /// Steps of the whole schedule, at least 1; by [`crate::StrengthRule::FewerSteps`] strength decides how many of them run.
    pub steps: u32,
    /// 0 gives the input back, 1 ignores it.
    pub strength: f64,
    /// The w in uncond + w (cond - uncond); guidance is on above 1.
    pub guidance_scale: f64,
    /// Seed of the first image; a random one has already been drawn when the caller gave none.
    pub seed: u64,
    /// 1 uses the text encoder's last layer, 2 the one before it, and so on.
    pub clip_skip: u32,
    /// Whether large images are made faster by merging tokens that are nearly alike, which changes them a little;
    /// [`Self::merges_tokens`] says which ones are large.
    pub token_merging: bool,
    /// Which scheduler runs.
    pub scheduler: SchedulerChoice,
    /// With a mask: pixels inside the repainted part over which the new image fades in; 0 is a hard edge.
    pub soft_edge: u32,
    /// What shows the model an image beside the prompt. Jobs of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_adapter: Option<IpAdapterRef>,
}

impl Recipe {
    /// A model with nothing beside it, one step and no words.
    #[must_use]
    pub fn of_model(model: ModelId) -> Self {
        Self {
            model,
            vae: None,
            loras: Vec::new(),
            embeddings: Vec::new(),
            prompt: String::new(),
            negative_prompt: None,
            image_count: 1,
            steps: 1,
            strength: 1.0,
            guidance_scale: 1.0,
            seed: 0,
            clip_skip: 1,
            token_merging: false,
            scheduler: SchedulerChoice::default(),
            soft_edge: 0,
            ip_adapter: None,
        }
    }

    /// What the decoded images of a job take, in bytes: those that it brings, each with its own bytes, and those that it will
    /// be given, which have the size of the one to start from.
    #[must_use]
    pub fn image_bytes(&self, brought: impl IntoIterator<Item = (InputRole, u64)>) -> u64 {
        let bytes_of = |(role, bytes): (InputRole, u64)| match role {
            InputRole::Init => bytes.saturating_add(u64::from(self.image_count).saturating_mul(bytes)),
            InputRole::Mask | InputRole::IpAdapter => bytes,
        };
        brought.into_iter().map(bytes_of).fold(0, u64::saturating_add)
    }

    /// Whether its run has no evaluation, so that every image is the one to start from, pixel for pixel. By every rule of
    /// [`crate::StrengthRule`] a strength above 0 has one at least.
    #[must_use]
    pub fn gives_input_back(&self) -> bool {
        self.strength <= 0.0
    }

    /// What it should not show, empty also where nothing is said.
    #[must_use]
    pub fn negative_text(&self) -> &str {
        self.negative_prompt.as_deref().unwrap_or_default()
    }

    /// Whether an evaluation has a row without the prompt beside the one with it. Distilled checkpoints, which take the scale
    /// as an input, have one row all the same.
    #[must_use]
    pub fn is_guided(&self) -> bool {
        self.guidance_scale > 1.0
    }

    /// About how much of the device's time a job takes on an image of this size: pixels times rows, over all `evaluations` of
    /// each image and with the VAE's passes counted as so many of them. Good for comparing jobs, whatever the device; what a
    /// job really took is for the engine to measure.
    #[must_use]
    pub fn work(&self, size: Size, rows: u32, evaluations: u32) -> u64 {
        // A pass of the VAE in evaluations of one row of the same size, about, on a checkpoint of Stable Diffusion 1.
        const ENCODE: u128 = 2;
        const DECODE: u128 = 3;
        if self.gives_input_back() {
            // It never comes to the device, and 0 is the work of a job of which nothing is known.
            return 1;
        }
        let image = u128::from(rows) * u128::from(evaluations) + DECODE;
        let all = u128::from(self.image_count)
            .saturating_mul(image)
            .saturating_add(ENCODE);
        let work = all.saturating_mul(u128::from(size.pixels()));
        u64::try_from(work).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
impl Recipe {
    /// For tests that look at one field.
    pub(crate) fn sample() -> Self {
        Self {
            steps: 20,
            strength: 0.5,
            guidance_scale: 7.5,
            ..Self::of_model(ModelId::new("demo"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(rows: u32, evaluations: u32, image_count: u32, side: u32) -> u64 {
        let recipe = Recipe {
            image_count,
            ..Recipe::sample()
        };
        let size = Size {
            width: side,
            height: side,
        };
        recipe.work(size, rows, evaluations)
    }

    #[test]
    fn work_grows_with_pixels_rows_evaluations_and_images() {
        assert_eq!(work(1, 4, 1, 64), 64 * 64 * (2 + 4 + 3));
        assert_eq!(work(2, 21, 4, 1024), 1024 * 1024 * (2 + 4 * (2 * 21 + 3)));
        assert_eq!(
            work(2, 0, 1, 8),
            8 * 8 * 5,
            "the picture is still encoded and decoded"
        );
        assert_eq!(work(2, u32::MAX, u32::MAX, u32::MAX), u64::MAX);
    }
}
