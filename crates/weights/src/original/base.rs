//! Which Stable Diffusion a file is, or what it seems to be instead: from its tensors, never from its name.

use std::collections::BTreeMap;

use super::{CLIP, CLIP_OF_SDXL, OPEN_CLIP, OPEN_CLIP_OF_SDXL, UNET, VAE};
use crate::container::{StoredTensor, below};

/// The family of a checkpoint in the original layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Stable Diffusion 1.x: CLIP's text encoder.
    Sd1,
    /// Stable Diffusion 2.x: OpenCLIP's.
    Sd2,
    /// SDXL's base model: both.
    Sdxl,
}

impl Base {
    /// The VAE's factor, which no tensor tells.
    pub(super) const fn scaling_factor(self) -> f64 {
        match self {
            Self::Sd1 | Self::Sd2 => 0.18215,
            Self::Sdxl => 0.13025,
        }
    }
}

/// Parts of other models by the start of a name, the telling ones first.
const OTHERS: [(&[&str], &str); 13] = [
    (
        &["edm_mean", "edm_std"],
        "a checkpoint of Playground 2.5, whose scheduler this version does not have",
    ),
    (
        &["conditioner.embedders.0.model."],
        "a refiner of Stable Diffusion XL; name the base model",
    ),
    (
        &["model.diffusion_model.joint_blocks.", "joint_blocks."],
        "a checkpoint of Stable Diffusion 3, which is no Stable Diffusion 1, 2 or XL",
    ),
    (
        &[
            "model.diffusion_model.double_blocks.",
            "double_blocks.",
            "double_layers.",
        ],
        "a diffusion transformer as FLUX, which is no Stable Diffusion 1, 2 or XL",
    ),
    (
        &["transformer_blocks.", "model.diffusion_model.transformer_blocks."],
        "a diffusion transformer, which is no Stable Diffusion 1, 2 or XL",
    ),
    (
        &["clip_txt_mapper.", "down_blocks.1.0.channelwise."],
        "a checkpoint of Stable Cascade, which is no Stable Diffusion 1, 2 or XL",
    ),
    (
        &[
            "control_model.",
            "controlnet_cond_embedding.",
            "input_hint_block.",
        ],
        "a ControlNet, which this version does not read",
    ),
    (
        &["cond_stage_model.", "conditioner."],
        "its UNet, its VAE or its text encoder is missing; a whole checkpoint is needed",
    ),
    (
        &[UNET],
        "it has a UNet, but no text encoder and VAE beside it; a whole checkpoint is needed",
    ),
    (
        &["down_blocks.", "conv_in."],
        "a single component of a diffusers folder; name the folder that holds all of them",
    ),
    // The numbered names of 2022.
    (
        &["unet:0:", "text_encoder:0:"],
        "a LoRA; its entry needs `kind = \"lora\"`",
    ),
    (
        &["encoder.down.", "decoder.up."],
        "a VAE; its entry needs `kind = \"vae\"`",
    ),
    (
        &["emb_params", "string_to_param"],
        "a textual inversion; its entry needs `kind = \"embedding\"`",
    ),
];

/// The base of a file with these tensors.
///
/// # Errors
/// What the file seems to be instead.
pub(super) fn of(tensors: &BTreeMap<String, StoredTensor>) -> Result<Base, &'static str> {
    let has = |prefix: &str| below(tensors, prefix).next().is_some();
    if has(UNET) && has(VAE) && !has("edm_mean") {
        // Sizes of an image, or of its noise: unCLIP and the upscaler.
        let is_labelled = has("model.diffusion_model.label_emb.");
        if has(CLIP_OF_SDXL) && has(OPEN_CLIP_OF_SDXL) && is_labelled {
            return Ok(Base::Sdxl);
        }
        if (has(CLIP) || has(OPEN_CLIP)) && is_labelled {
            return Err("an upscaler or an image variation model (unCLIP), which this version does not read");
        }
        if has(CLIP) {
            return Ok(Base::Sd1);
        }
        if has(OPEN_CLIP) {
            return Ok(Base::Sd2);
        }
    }
    let is_lora = |name: &String| {
        let marks = ["lora_", "lokr_", "hada_"];
        marks.iter().any(|mark| name.contains(mark))
    };
    let found = OTHERS
        .iter()
        .find(|(prefixes, _)| prefixes.iter().any(|prefix| has(prefix)));
    match found {
        _ if !has(UNET) && tensors.keys().any(is_lora) => Err("a LoRA; its entry needs `kind = \"lora\"`"),
        Some((_, detail)) => Err(detail),
        None => Err("none of its tensors is one of a Stable Diffusion checkpoint"),
    }
}
