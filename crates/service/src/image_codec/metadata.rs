//! What a finished image says about how it was made, and how to read that again.
//!
//! It holds nothing of when, where and for whom, so that the same request gives the same bytes.

use std::fmt::Write as _;

use pentimento_engine::Precision;
use pentimento_types::{NoiseSpacing, Recipe, Size, StrengthRule, Task};
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::orientation::Blocks;
use super::{exif, jpeg_structure, png_file, webp_file};

/// The keyword of the text chunk for people's tools, as A1111 writes it.
pub(super) const PNG_PARAMETERS: &str = "parameters";
/// The keyword of the text chunk with our own JSON.
pub(super) const PNG_JSON: &str = "pentimento";

/// A LoRA or an IP-Adapter as it was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterRecord {
    /// The name in the request.
    pub model: String,
    /// Its weight; of an IP-Adapter its scale.
    pub strength: f64,
}

/// Everything that decides an image, beside the input image and the weights themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageMetadata {
    /// Program and version.
    pub software: String,
    /// What was done; left out where a whole image was changed.
    #[serde(default, skip_serializing_if = "changes_an_image")]
    pub task: Task,
    /// The checkpoint as the request named it.
    pub model: String,
    /// Another VAE than the checkpoint's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<String>,
    /// LoRAs in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<AdapterRecord>,
    /// Textual inversions in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<String>,
    /// What showed the model another image beside the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_adapter: Option<AdapterRecord>,
    /// What the image should show.
    pub prompt: String,
    /// What it should not show.
    pub negative_prompt: String,
    /// Steps of the whole schedule.
    pub steps: u32,
    /// How far from the input image the run started, 0 to 1; 1 where there was none.
    pub strength: f64,
    /// What the strength took away; left out where it took steps.
    #[serde(default, skip_serializing_if = "takes_steps")]
    pub strength_rule: StrengthRule,
    /// Guidance scale.
    pub guidance_scale: f64,
    /// The seed of this very image.
    pub seed: u64,
    /// 1 is the text encoder's last layer.
    pub clip_skip: u32,
    /// The scheduler's class name; None means the one that the checkpoint names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Whether the noise levels were spaced after Karras.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub karras: bool,
    /// Whether nearly equal tokens were merged: asked for, and the image large enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub token_merging: bool,
    /// Whether the mask's grey said how much each pixel may change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differential_diffusion: bool,
    /// The numbers in which it was computed, `f16` or `bf16`; left out where they were f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Whether a safety checker found content that it was to look for; left out where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsfw: Option<bool>,
    /// Pixels per line of what was computed.
    pub width: u32,
    /// Its lines.
    pub height: u32,
}

fn takes_steps(rule: &StrengthRule) -> bool {
    *rule == StrengthRule::FewerSteps
}

fn changes_an_image(task: &Task) -> bool {
    *task == Task::ImageToImage
}

impl ImageMetadata {
    /// The same, computed in these numbers.
    #[must_use]
    pub fn computed_in(self, precision: Precision) -> Self {
        Self {
            precision: (precision != Precision::F32).then(|| precision.to_string()),
            ..self
        }
    }

    /// Of image number `index` of a request.
    #[must_use]
    pub fn new(recipe: &Recipe, task: Task, index: u32, size: Size) -> Self {
        // A framed picture is computed in another size than it is handed out in.
        let size = recipe.framing.map_or(size, |framing| framing.size);
        Self {
            task,
            software: concat!("pentimento ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: recipe.model.as_str().to_owned(),
            vae: recipe.vae.as_ref().map(|vae| vae.as_str().to_owned()),
            loras: recipe
                .loras
                .iter()
                .map(|lora| AdapterRecord {
                    model: lora.model.as_str().to_owned(),
                    strength: lora.strength,
                })
                .collect(),
            embeddings: recipe
                .embeddings
                .iter()
                .map(|embedding| embedding.model.as_str().to_owned())
                .collect(),
            ip_adapter: recipe.ip_adapter.as_ref().map(|adapter| AdapterRecord {
                model: adapter.model.as_str().to_owned(),
                strength: adapter.scale,
            }),
            prompt: recipe.prompt.clone(),
            negative_prompt: recipe.negative_text().to_owned(),
            steps: recipe.steps,
            strength: recipe.strength_for(task),
            strength_rule: recipe.scheduler.strength_rule,
            guidance_scale: recipe.guidance_scale,
            seed: recipe.seed.wrapping_add(u64::from(index)),
            clip_skip: recipe.clip_skip,
            scheduler: recipe.scheduler.kind.map(|kind| kind.class_name().to_owned()),
            karras: recipe.scheduler.spacing == NoiseSpacing::Karras,
            token_merging: recipe.merges_tokens(size),
            differential_diffusion: recipe.differential_diffusion && task == Task::Inpainting,
            precision: None,
            nsfw: None,
            width: size.width,
            height: size.height,
        }
    }

    /// The text that A1111 and the tools around it read and write.
    #[must_use]
    pub fn parameters_text(&self) -> String {
        // A text chunk must not hold the zero character.
        let mut text = self.prompt.replace('\0', " ");
        for AdapterRecord { model, strength } in &self.loras {
            // As its readers apply them; a name with these letters is no tag there.
            if !model.contains([':', '>', '\n', '\0']) {
                let _ = write!(text, "<lora:{model}:{strength}>");
            }
        }
        if !self.negative_prompt.is_empty() {
            let _ = write!(
                text,
                "\nNegative prompt: {}",
                self.negative_prompt.replace('\0', " ")
            );
        }
        let _ = write!(text, "\nSteps: {}", self.steps);
        if let Some(scheduler) = &self.scheduler {
            let karras = if self.karras { " Karras" } else { "" };
            let _ = write!(text, ", Sampler: {scheduler}{karras}");
        }
        let _ = write!(
            text,
            ", CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}",
            self.guidance_scale, self.seed, self.width, self.height, self.model,
        );
        if self.task != Task::TextToImage {
            let _ = write!(text, ", Denoising strength: {}", self.strength);
        }
        let _ = write!(text, ", Clip skip: {}", self.clip_skip);
        if self.token_merging {
            // The only ratio there is.
            text.push_str(", Token merging ratio: 0.5");
        }
        let _ = write!(text, ", Version: {}", self.software);
        text
    }

    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// What one of our own files says; None for any other file.
#[must_use]
pub fn read_metadata(bytes: &[u8]) -> Option<ImageMetadata> {
    let json = match Container::of(bytes) {
        Container::Png => String::from_utf8(png_file::text(bytes, PNG_JSON)?).ok()?,
        Container::Jpeg => exif_json(jpeg_structure::read(bytes).ok()?.blocks)?,
        Container::Webp => exif_json(webp_file::blocks(bytes))?,
        Container::Other(_) => return None,
    };
    serde_json::from_str(&json).ok()
}

/// The text that A1111 and the tools around it put into a picture; None for a file without one. Of a JPEG or WebP only our own is
/// read.
#[must_use]
pub fn read_parameters(bytes: &[u8]) -> Option<String> {
    if Container::of(bytes) != Container::Png {
        return Some(read_metadata(bytes)?.parameters_text());
    }
    let text = png_file::text(bytes, PNG_PARAMETERS)?;
    Some(match String::from_utf8(text) {
        Ok(text) => text,
        // `tEXt` is Latin-1 by its definition.
        Err(other) => other.into_bytes().into_iter().map(char::from).collect(),
    })
}

fn exif_json(blocks: Blocks) -> Option<String> {
    exif::read(&blocks.exif?).map(str::to_owned)
}
