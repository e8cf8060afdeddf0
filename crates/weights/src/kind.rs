//! What a weights file is that is no LoRA, told from one name that no other kind of file has.

use crate::container::{Notes, TensorFile, below};

pub(crate) const CHECKPOINT: &str = "a checkpoint";
pub(crate) const VAE: &str = "a VAE";
pub(crate) const TINY_AUTOENCODER: &str = "a tiny autoencoder";
pub(crate) const HYPERNETWORK: &str = "a hypernetwork";
pub(crate) const CONTROL_NET: &str = "a ControlNet";
pub(crate) const IP_ADAPTER: &str = "an IP-Adapter";
pub(crate) const UPSCALER: &str = "an upscaler";
pub(crate) const UNET: &str = "a UNet";
pub(crate) const TEXT_ENCODER: &str = "a text encoder";
/// Dictionaries around the tensors of an upscaler, those that training averages first.
pub(crate) const UPSCALER_GROUPS: [&str; 4] = ["params_ema.", "params.", "state_dict.", ""];
const CONTROL_LORA: &str = "a ControlLoRA";
const CONTROL_LLLITE: &str = "a ControlNet-LLLite";

/// What a file is that was given as a LoRA and is none; None for a LoRA. `has_module` says whether any of its tensors has a
/// name that only LoRA files have.
pub(crate) fn instead_of_lora(file: &TensorFile, has_module: bool) -> Option<&'static str> {
    match named(file) {
        // They have matrices called `up` and `down`, too.
        Some(what @ (CONTROL_LORA | CONTROL_NET | CONTROL_LLLITE | IP_ADAPTER)) => Some(what),
        _ if has_module => None,
        Some(what) => Some(what),
        None if is_embedding(file) => Some("a textual inversion"),
        None => Some("a file without a tensor of a LoRA"),
    }
}

fn is_embedding(file: &TensorFile) -> bool {
    let is_vector = |name: &String| {
        matches!(name.as_str(), "emb_params" | "clip_l" | "clip_g")
            || name.starts_with("string_to_param.")
            || name.starts_with('<') && name.ends_with('>')
    };
    file.tensors().keys().any(is_vector)
}

/// What a file is that was given as a textual inversion and is none.
pub(crate) fn instead_of_embedding(file: &TensorFile, has_embedding: bool) -> Option<&'static str> {
    const LORA_WORDS: [&str; 7] = [
        "lora_",
        "lokr_",
        "hada_",
        ".lora.",
        "_lora.",
        "unet:0:",
        "text_encoder:0:",
    ];
    let is_lora = |name: &String| LORA_WORDS.iter().any(|word| name.contains(word));
    if file.tensors().keys().any(is_lora) {
        return Some("a LoRA");
    }
    match named(file) {
        _ if has_embedding => None,
        Some(what) => Some(what),
        None => Some("a file without an embedding"),
    }
}

/// The kind of a file, with its article; None where no name tells. A LoRA and a textual inversion have none here.
pub(crate) fn named(file: &TensorFile) -> Option<&'static str> {
    let tensors = file.tensors();
    let has = |prefix: &str| below(tensors, prefix).next().is_some();
    let any_has = |prefixes: &[&str]| prefixes.iter().any(|prefix| has(prefix));
    let ends = |end: &str| tensors.keys().any(|name| name.ends_with(end));
    let contains = |word: &str| tensors.keys().any(|name| name.contains(word));
    Some(
        if has("lora_controlnet") || has("input_hint_block.") && ends(".up") {
            CONTROL_LORA
        } else if has("lllite_") {
            CONTROL_LLLITE
        } else if any_has(&[
            "control_model.",
            "controlnet_cond_embedding.",
            "input_hint_block.",
        ]) {
            CONTROL_NET
        } else if any_has(&["ip_adapter.", "image_proj."]) || contains(".to_k_ip.") {
            IP_ADAPTER
        } else if is_hypernetwork(file.notes()) {
            HYPERNETWORK
        } else if any_has(&[
            "model.diffusion_model.",
            "cond_stage_model.",
            "conditioner.embedders.",
        ]) {
            CHECKPOINT
        } else if is_upscaler(file) {
            UPSCALER
        } else if is_tiny_autoencoder(file) {
            TINY_AUTOENCODER
        } else if any_has(&[
            "first_stage_model.",
            "encoder.down.",
            "decoder.up.",
            "encoder.down_blocks.",
            "decoder.up_blocks.",
        ]) {
            VAE
        } else if contains("_custom_diffusion.") {
            "a Custom Diffusion adapter"
        } else if contains(".oft_") || contains(".boft_") {
            "an OFT adapter, which is not supported,"
        } else if ends(".a1.weight") && ends(".b1.weight") {
            "a GLoRA, which is not supported,"
        } else if any_has(&[
            "double_blocks.",
            "single_blocks.",
            "joint_blocks.",
            "transformer_blocks.",
        ]) {
            "a diffusion transformer"
        } else if has("down_blocks.") && has("conv_in.") {
            UNET
        } else if any_has(&["text_model.", "encoder.layers.", "transformer.resblocks."]) {
            TEXT_ENCODER
        } else {
            return None;
        },
    )
}

/// The TAESD family: sequences of numbered layers, one for each way or both in one file.
fn is_tiny_autoencoder(file: &TensorFile) -> bool {
    let is_block = |name: &String| {
        let mut words = name.split('.').skip_while(|word| {
            matches!(
                *word,
                "encoder" | "decoder" | "layers" | "taesd_encoder" | "taesd_decoder"
            )
        });
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        number && words.next() == Some("conv")
    };
    file.tensors().keys().any(is_block)
}

/// A1111's hypernetworks are dictionaries of lists by the width that each is for.
fn is_hypernetwork(notes: &Notes) -> bool {
    let is_list = |width: &str| {
        let kind = notes.get(width).map(String::as_str);
        matches!(kind, Some("a tuple" | "a list"))
    };
    ["320", "640", "768", "1024", "1280"].into_iter().any(is_list)
}

/// Whether the names are those of an upscaler, however it is large.
pub(crate) fn is_upscaler(file: &TensorFile) -> bool {
    let tensors = file.tensors();
    let has = |group: &str, name: &str| tensors.contains_key(&format!("{group}{name}"));
    UPSCALER_GROUPS.iter().any(|group| {
        has(group, "conv_first.weight") && has(group, "body.0.rdb1.conv1.weight")
            || has(group, "model.0.weight") && has(group, "model.1.sub.0.RDB1.conv1.0.weight")
            || has(group, "body.0.weight") && has(group, "body.1.weight") && has(group, "body.2.weight")
    })
}
