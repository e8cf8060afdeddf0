//! What decides the pixels of a job's images, beside the input images and the weights themselves.
//!
//! A dialect builds it and checks every range; nothing inside checks it again.

use serde::{Deserialize, Serialize};

use crate::{InputRole, ModelId, SchedulerChoice, Size, StrengthRule};

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
    /// What it should not show; empty means none.
    pub negative_prompt: String,
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
}

impl Recipe {
    /// What the decoded images of a job take, in bytes: those that it brings, each with its own bytes, and those that it will
    /// be given, which have the size of the one to start from.
    #[must_use]
    pub fn image_bytes(&self, brought: impl IntoIterator<Item = (InputRole, u64)>) -> u64 {
        let bytes_of = |(role, bytes): (InputRole, u64)| match role {
            InputRole::Init => bytes.saturating_add(u64::from(self.image_count).saturating_mul(bytes)),
            InputRole::Mask => bytes,
        };
        brought.into_iter().map(bytes_of).fold(0, u64::saturating_add)
    }

    /// About how much of the device's time a job takes on an image of this size: pixels times rows, over all evaluations and
    /// with the VAE's passes counted as so many of them. Good for comparing jobs, whatever the device; what a job really
    /// took is for the engine to measure.
    #[must_use]
    pub fn work(&self, size: Size) -> u64 {
        // A pass of the VAE in evaluations of one row of the same size, about, on a checkpoint of Stable Diffusion 1.
        const ENCODE: f64 = 2.0;
        const DECODE: f64 = 3.0;
        let rows = if self.guidance_scale > 1.0 { 2.0 } else { 1.0 };
        let steps = match self.scheduler.strength_rule {
            StrengthRule::LowerStart if self.strength > 0.0 => f64::from(self.steps),
            StrengthRule::FewerSteps | StrengthRule::LowerStart => {
                (f64::from(self.steps) * self.strength).ceil()
            }
        };
        let image = rows * steps + DECODE;
        let all = ENCODE + f64::from(self.image_count) * image;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a positive estimate, which the cast keeps within the type"
        )]
        let work = (size.pixels() as f64 * all) as u64;
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(steps: u32, strength: f64, guidance_scale: f64, image_count: u32, side: u32) -> u64 {
        let recipe = Recipe {
            model: ModelId::new("demo"),
            vae: None,
            loras: Vec::new(),
            embeddings: Vec::new(),
            prompt: String::new(),
            negative_prompt: String::new(),
            image_count,
            steps,
            strength,
            guidance_scale,
            seed: 0,
            clip_skip: 1,
            token_merging: false,
            scheduler: SchedulerChoice::default(),
            soft_edge: 0,
        };
        recipe.work(Size {
            width: side,
            height: side,
        })
    }

    #[test]
    fn work_grows_with_pixels_rows_evaluations_and_images() {
        assert_eq!(work(4, 1.0, 1.0, 1, 64), 64 * 64 * (2 + 4 + 3));
        assert_eq!(work(40, 0.51, 7.5, 4, 1024), 1024 * 1024 * (2 + 4 * (2 * 21 + 3)));
        assert_eq!(
            work(20, 0.0, 7.5, 1, 8),
            8 * 8 * 5,
            "the picture is still encoded and decoded"
        );
        assert_eq!(work(u32::MAX, 1.0, 2.0, u32::MAX, u32::MAX), u64::MAX);
    }
}
