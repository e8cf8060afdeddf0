//! What a weights file is, told from the names and shapes of its tensors.

use crate::container::{Notes, TensorFile};

/// What a file is that was given as a LoRA and is none; None for a LoRA. `has_module` says whether any of its tensors has a
/// name that only LoRA files have.
pub(crate) fn instead_of_lora(file: &TensorFile, has_module: bool) -> Option<String> {
    let found = named(file);
    match found {
        // Its matrices are called `up` and `down` too, and a LoRA may be merged into other networks' names.
        Some(what @ (CONTROL_LORA | CONTROL_NET | IP_ADAPTER | CONTROL_LLLITE)) => Some(what.to_owned()),
        _ if has_module => None,
        Some(what) => Some(what.to_owned()),
        None => Some("a file without a tensor of a LoRA".to_owned()),
    }
}

const CONTROL_LORA: &str = "a ControlLoRA";
const CONTROL_NET: &str = "a ControlNet";
const CONTROL_LLLITE: &str = "a ControlNet-LLLite";
const IP_ADAPTER: &str = "an IP-Adapter";

/// The kind of a file by one name that no other kind has; None where none is known.
fn named(file: &TensorFile) -> Option<&'static str> {
    let tensors = file.tensors();
    let has = |prefix: &str| {
        let from = tensors.range(prefix.to_owned()..).next();
        from.is_some_and(|(name, _)| name.starts_with(prefix))
    };
    let ends = |end: &str| tensors.keys().any(|name| name.ends_with(end));
    let contains = |word: &str| tensors.keys().any(|name| name.contains(word));
    Some(
        if has("lora_controlnet") || has("input_hint_block.") && ends(".up") {
            CONTROL_LORA
        } else if has("lllite_") {
            CONTROL_LLLITE
        } else if has("control_model.") || has("controlnet_cond_embedding.") || has("input_hint_block.") {
            CONTROL_NET
        } else if has("ip_adapter.") || has("image_proj.") || contains(".to_k_ip.") {
            IP_ADAPTER
        } else if is_hypernetwork(file.notes()) {
            "a hypernetwork"
        } else if has("model.diffusion_model.") || has("cond_stage_model.") || has("conditioner.embedders.") {
            "a checkpoint"
        } else if has("first_stage_model.")
            || has("encoder.down.")
            || has("decoder.up.")
            || has("decoder.up_blocks.")
        {
            "a VAE"
        } else if has("emb_params") || has("string_to_param.") || has("clip_l") || has("clip_g") {
            "a textual inversion"
        } else if contains("_custom_diffusion.") {
            "a Custom Diffusion adapter"
        } else if contains(".oft_") || contains(".boft_") {
            "an OFT adapter, which is not supported,"
        } else if ends(".a1.weight") && ends(".b1.weight") {
            "a GLoRA, which is not supported,"
        } else if has("double_blocks.")
            || has("single_blocks.")
            || has("joint_blocks.")
            || has("transformer_blocks.")
        {
            "a diffusion transformer"
        } else if has("down_blocks.") && has("conv_in.") {
            "a UNet"
        } else if has("text_model.") || has("encoder.layers.") {
            "a text encoder"
        } else {
            return None;
        },
    )
}

/// A1111's hypernetworks are dictionaries of lists by the width that each is for.
fn is_hypernetwork(notes: &Notes) -> bool {
    let is_list = |width: &str| {
        let kind = notes.get(width).map(String::as_str);
        matches!(kind, Some("a tuple" | "a list"))
    };
    ["320", "640", "768", "1024", "1280"].into_iter().any(is_list)
}
