//! Which part of which module a tensor is, told from its name: every trainer has its own spelling.
//!
//! Spellings come from kohya-ss/sd-scripts (`networks/lora.py`), LyCORIS (`lycoris/modules`), PEFT and diffusers
//! (`loaders/lora_conversion_utils.py`, `utils/state_dict_utils.py`), and cloneofsimo/lora for the numbered ones.

use super::LoraNetwork;

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Up,
    Down,
    Mid,
    Alpha,
    /// The lengths of DoRA as LyCORIS stores them.
    DoraScale,
    /// The same as PEFT stores them: of the outputs always.
    Magnitude,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    KronW1,
    KronW1A,
    KronW1B,
    KronW2,
    KronW2A,
    KronW2B,
    KronT2,
    /// A whole difference of the weight, or of a norm's.
    Difference,
    /// The same of the bias.
    BiasDifference,
    /// The bias of `lora_B`.
    UpBias,
    /// A plain `weight`: (IA)³ where `OnInput` is beside it.
    Weight,
    OnInput,
    /// (IA)³ of PEFT.
    Ia3,
}

/// The last words of a name that say which part it is.
const WORDS: [(&str, Part); 29] = [
    ("lora_up", Part::Up),
    ("lora_down", Part::Down),
    ("lora_mid", Part::Mid),
    ("lora_B", Part::Up),
    ("lora_A", Part::Down),
    ("up", Part::Up),
    ("down", Part::Down),
    ("alpha", Part::Alpha),
    ("dora_scale", Part::DoraScale),
    ("lora_magnitude_vector", Part::Magnitude),
    ("hada_w1_a", Part::HadaW1A),
    ("hada_w1_b", Part::HadaW1B),
    ("hada_w2_a", Part::HadaW2A),
    ("hada_w2_b", Part::HadaW2B),
    ("hada_t1", Part::HadaT1),
    ("hada_t2", Part::HadaT2),
    ("lokr_w1", Part::KronW1),
    ("lokr_w1_a", Part::KronW1A),
    ("lokr_w1_b", Part::KronW1B),
    ("lokr_w2", Part::KronW2),
    ("lokr_w2_a", Part::KronW2A),
    ("lokr_w2_b", Part::KronW2B),
    ("lokr_t2", Part::KronT2),
    ("diff", Part::Difference),
    ("diff_b", Part::BiasDifference),
    ("w_norm", Part::Difference),
    ("b_norm", Part::BiasDifference),
    ("on_input", Part::OnInput),
    ("ia3_l", Part::Ia3),
];

/// A LoRA's own name at the end of a module's, as in `to_q_lora.up.weight` or `to_q.lora.up.weight`.
const OWN_NAMES: [&str; 4] = [".lora_linear_layer", ".lora_layer", ".lora", "_lora"];

/// The module's name as the file has it, and the part. None for a name that no LoRA has.
pub(super) fn split(key: &str) -> Option<(String, Part)> {
    if let Some(numbered) = numbered(key) {
        return Some(numbered);
    }
    let (rest, is_bias) = match key.rsplit_once('.') {
        Some((rest, "weight")) => (rest, false),
        Some((rest, "bias")) => (rest, true),
        _ => (key, false),
    };
    let (module, part) = match rest.rsplit_once('.') {
        Some((module, word)) if part_of(module, word).is_some() => (module, part_of(module, word)?),
        // PEFT may leave the adapter's name in: `lora_A.default.weight`.
        Some((before, _)) => match before.rsplit_once('.') {
            Some((module, word @ ("lora_A" | "lora_B" | "lora_magnitude_vector" | "ia3_l"))) => {
                (module, part_of(module, word)?)
            }
            _ if rest != key && !is_bias => (rest, Part::Weight),
            _ => return None,
        },
        None if rest != key && !is_bias => (rest, Part::Weight),
        None => return None,
    };
    let part = match (part, is_bias) {
        (Part::Up, true) => Part::UpBias,
        (_, true) => return None,
        (part, false) => part,
    };
    let module = OWN_NAMES
        .iter()
        .find_map(|own| module.strip_suffix(own))
        .unwrap_or(module);
    Some((module.to_owned(), part))
}

fn part_of(module: &str, word: &str) -> Option<Part> {
    // The short words are a LoRA's after its own name only: a network may have something of that name.
    if matches!(word, "up" | "down") && !OWN_NAMES.iter().any(|own| module.ends_with(own)) {
        return None;
    }
    let found = WORDS.iter().find(|(known, _)| *known == word)?;
    Some(found.1)
}

/// `unet:12:up`, the names of 2022.
fn numbered(key: &str) -> Option<(String, Part)> {
    let (module, part) = key.rsplit_once(':')?;
    let part = match part {
        "up" => Part::Up,
        "down" => Part::Down,
        _ => return None,
    };
    number(module)?;
    Some((module.to_owned(), part))
}

/// The network and the number of a module of the first numbering.
pub(super) fn number(module: &str) -> Option<(LoraNetwork, usize)> {
    let (network, number) = module.split_once(':')?;
    let network = match network {
        "unet" => LoraNetwork::UNet,
        "text_encoder" => LoraNetwork::TextEncoder,
        _ => return None,
    };
    Some((network, number.parse().ok()?))
}

/// What may stand before a layer's name, and what it says of the network.
const PREFIXES: [(&str, Option<LoraNetwork>); 17] = [
    ("lora_unet_", Some(LoraNetwork::UNet)),
    ("lora_te1_", Some(LoraNetwork::TextEncoder)),
    ("lora_te2_", Some(LoraNetwork::TextEncoder2)),
    ("lora_te_", Some(LoraNetwork::TextEncoder)),
    ("lycoris_", None),
    ("unet_", Some(LoraNetwork::UNet)),
    ("te1_", Some(LoraNetwork::TextEncoder)),
    ("te2_", Some(LoraNetwork::TextEncoder2)),
    ("te_", Some(LoraNetwork::TextEncoder)),
    ("base_model.model.", None),
    ("lora_unet.", Some(LoraNetwork::UNet)),
    ("unet.", Some(LoraNetwork::UNet)),
    ("text_encoder_2.", Some(LoraNetwork::TextEncoder2)),
    ("text_encoder.", Some(LoraNetwork::TextEncoder)),
    ("model.diffusion_model.", Some(LoraNetwork::UNet)),
    ("diffusion_model.", Some(LoraNetwork::UNet)),
    ("module.", None),
];

/// Where a module says that it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// None where the name does not tell.
    pub(super) network: Option<LoraNetwork>,
    /// The layer's path, with underscores for all dots.
    pub(super) layer: String,
}

/// Takes the prefixes off a module's name.
pub(super) fn address(module: &str) -> Address {
    let mut network = None;
    let mut layer = module;
    while let Some((rest, says)) = PREFIXES
        .iter()
        .find_map(|(prefix, says)| Some((layer.strip_prefix(prefix)?, *says)))
    {
        layer = rest;
        network = network.or(says);
    }
    Address {
        network,
        // Diffusers once kept the matrices in the attention's `processor`.
        layer: underscored(layer).replace("_processor_", "_"),
    }
}

/// A path without its dots, as kohya's files have it.
pub(super) fn underscored(path: &str) -> String {
    path.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_layer_is_found() {
        let layer = "mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
        for (key, part) in [
            (
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
                Part::Up,
            ),
            (
                "lycoris_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lokr_w1_a",
                Part::KronW1A,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                Part::Down,
            ),
            (
                "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
                Part::Up,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight",
                Part::Up,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
                Part::Down,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_linear_layer.down.weight",
                Part::Down,
            ),
            (
                "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.default.weight",
                Part::Up,
            ),
            (
                "unet.base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_magnitude_vector",
                Part::Magnitude,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.alpha",
                Part::Alpha,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.alpha",
                Part::Alpha,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.bias",
                Part::UpBias,
            ),
        ] {
            let (module, found) = split(key).unwrap();
            assert_eq!(found, part, "{key}");
            assert_eq!(address(&module).layer, layer, "{key}");
        }
    }

    #[test]
    fn the_prefix_says_which_network() {
        for (module, network, layer) in [
            (
                "lora_te2_text_model_x",
                Some(LoraNetwork::TextEncoder2),
                "text_model_x",
            ),
            ("text_encoder.x.y", Some(LoraNetwork::TextEncoder), "x_y"),
            ("lycoris_x", None, "x"),
            ("diffusion_model.x", Some(LoraNetwork::UNet), "x"),
        ] {
            let found = address(module);
            assert_eq!((found.network, &*found.layer), (network, layer), "{module}");
        }
    }

    #[test]
    fn numbers_and_strangers() {
        assert_eq!(split("unet:12:up").unwrap(), ("unet:12".to_owned(), Part::Up));
        assert_eq!(number("text_encoder:3"), Some((LoraNetwork::TextEncoder, 3)));
        for key in ["<s1>", "unet:x:up", "emb_params", "a.bias", "string_to_param"] {
            assert_eq!(split(key), None, "{key}");
        }
        assert_eq!(split("a.b.weight").unwrap().1, Part::Weight);
        assert_eq!(split("up.weight").unwrap().1, Part::Weight);
    }
}
