//! What decides the pixels of a job's images, beside the input images and the weights themselves.
//!
//! A dialect builds it and checks every range; nothing inside checks it again.

use serde::{Deserialize, Serialize};

use crate::{Framing, ModelId, SchedulerChoice, Size, Task};

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

/// An IP-Adapter by name, which shows the model the image in the role [`crate::InputRole::IpAdapter`].
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
    /// 0 gives the input back, 1 ignores it. What counts is [`Self::strength_for`] the task.
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
    /// How picture and mask are brought to the size that is computed, and the result back into the picture; None where they are
    /// computed as they are. Jobs of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
    /// With a mask: pixels inside the repainted part over which the new image fades in; 0 is a hard edge.
    pub soft_edge: u32,
    /// With a mask: its grey says how much each pixel may change, from black, which stays, to white (Levin and Fried 2023,
    /// "Differential Diffusion"). Otherwise grey counts as black or white, whichever is nearer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differential_diffusion: bool,
    /// With a mask: whether it leaves every pixel as it is, which is known when it has been decoded. Jobs of earlier versions
    /// were not asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_everything: bool,
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
            framing: None,
            soft_edge: 0,
            differential_diffusion: false,
            keeps_everything: false,
            ip_adapter: None,
        }
    }

    /// What the decoded images of a job take, in bytes: all that it brings, and as many results as it wants, of `result` bytes
    /// each.
    #[must_use]
    pub fn image_bytes(&self, result: u64, brought: impl IntoIterator<Item = u64>) -> u64 {
        let made = u64::from(self.image_count).saturating_mul(result);
        brought.into_iter().fold(made, u64::saturating_add)
    }

    /// The strength of a run: what is asked for, except in text to image, which has no image to keep anything of.
    #[must_use]
    pub const fn strength_for(&self, task: Task) -> f64 {
        match task {
            Task::TextToImage => 1.0,
            Task::ImageToImage | Task::Inpainting => self.strength,
        }
    }

    /// Whether its run has no evaluation, so that every image is the one to start from, pixel for pixel. By every rule of
    /// [`crate::StrengthRule`] a strength above 0 has one at least, unless its mask keeps everything.
    #[must_use]
    pub fn gives_input_back(&self) -> bool {
        self.strength <= 0.0 || self.keeps_everything
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

    /// About how much of the device's time a job takes on an image of this size, of which each has so many evaluations of so many
    /// rows: pixels times rows over all evaluations, with the VAE's passes counted as so many of them. Good for comparing jobs,
    /// whatever the device; what a job really took is for the engine to measure.
    #[must_use]
    pub fn work(&self, size: Size, task: Task, (rows, evaluations): (u32, u32)) -> u64 {
        // A pass of the VAE in evaluations of one row of the same size, about, on a checkpoint of Stable Diffusion 1.
        const DECODE: u128 = 3;
        if self.gives_input_back() {
            // It never comes to the device, and 0 is the work of a job of which nothing is known.
            return 1;
        }
        let encode: u128 = match task {
            Task::TextToImage => 0,
            Task::ImageToImage | Task::Inpainting => 2,
        };
        let image = u128::from(rows) * u128::from(evaluations) + DECODE;
        let all = u128::from(self.image_count)
            .saturating_mul(image)
            .saturating_add(encode);
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
        recipe.work(size, Task::ImageToImage, (rows, evaluations))
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

    #[test]
    fn text_to_image_has_nothing_to_encode_and_no_strength() {
        let recipe = Recipe::sample();
        let size = Size { width: 8, height: 8 };
        let work = |task| recipe.work(size, task, (1, 4));
        assert_eq!(work(Task::Inpainting), work(Task::ImageToImage));
        assert_eq!(work(Task::TextToImage), 8 * 8 * (4 + 3));
        let strength = |task| recipe.strength_for(task);
        assert_eq!(
            (strength(Task::TextToImage), strength(Task::Inpainting)),
            (1.0, 0.5)
        );
        let two = Recipe {
            image_count: 2,
            ..recipe
        };
        assert_eq!(two.image_bytes(10, [10, 3]), 33);
        assert_eq!(two.image_bytes(u64::MAX, [10]), u64::MAX);
    }
}
