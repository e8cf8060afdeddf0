//! OpenCLIP's text encoder, as Stable Diffusion 2 and the second encoder of SDXL have it: one matrix for queries, keys and
//! values, and a projection that is multiplied from the other side.

use serde_json::{Value, json};

use super::{Part, Renamed};
use crate::container::StoredTensor;

/// Blocks of Stable Diffusion 2 that are used; its files have one more.
const BLOCKS_OF_SD2: usize = 23;

/// The text encoder of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Stable Diffusion 2: the last block is never run, and neither is the projection.
    LastButOne,
    /// SDXL: all of it.
    Whole,
}

/// `config.json`, as diffusers has it for the part of the encoder that is used.
pub(super) fn config(part: &Part<'_>, used: Use) -> Option<Value> {
    let [vocabulary, width] = *part.shape("token_embedding.weight")? else {
        return None;
    };
    Some(json!({
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": part.size("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        "num_hidden_layers": blocks(part, used),
        // Both published encoders have heads of 64.
        "num_attention_heads": (width / 64).max(1),
        "max_position_embeddings": part.size("positional_embedding", 0)?,
        "projection_dim": part.size("text_projection", 1),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }))
}

/// The tensors by diffusers' names.
pub(super) fn renamed(part: &Part<'_>, used: Use) -> Renamed {
    let blocks = blocks(part, used);
    let named = part
        .0
        .iter()
        .flat_map(|(name, stored)| rename(name, stored, blocks));
    let mut renamed: Renamed = named.collect();
    if used == Use::LastButOne {
        renamed.remove("text_projection.weight");
    }
    renamed
}

/// How many blocks are used.
fn blocks(part: &Part<'_>, used: Use) -> usize {
    let blocks = part.count("transformer.resblocks");
    match used {
        Use::Whole => blocks,
        // Some trainers leave out what is not used.
        Use::LastButOne if blocks == BLOCKS_OF_SD2 => blocks,
        Use::LastButOne => blocks.saturating_sub(1),
    }
}

/// A tensor under its new name, or the parts of it. What is not known keeps its name, so that it is complained about later.
fn rename(name: &str, stored: &StoredTensor, blocks: usize) -> Vec<(String, StoredTensor)> {
    let one = |name: String| vec![(name, stored.clone())];
    let unknown = || one(name.to_owned());
    if name == "text_projection" {
        let turned = stored
            .transposed()
            .map(|turned| vec![("text_projection.weight".to_owned(), turned)]);
        return turned.unwrap_or_else(unknown);
    }
    const REST: [(&str, &str); 4] = [
        (
            "positional_embedding",
            "text_model.embeddings.position_embedding.weight",
        ),
        (
            "token_embedding.weight",
            "text_model.embeddings.token_embedding.weight",
        ),
        ("ln_final.weight", "text_model.final_layer_norm.weight"),
        ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ];
    if let Some((_, new)) = REST.iter().find(|(old, _)| *old == name) {
        return one((*new).to_owned());
    }
    let Some((number, rest)) = name
        .strip_prefix("transformer.resblocks.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return unknown();
    };
    if number.parse().is_ok_and(|number: usize| number >= blocks) {
        return Vec::new();
    }
    let layer = format!("text_model.encoder.layers.{number}");
    // The three are one above the other.
    let fused = |kind: &str| {
        let parts = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
        let parts = parts.map(|(number, name)| {
            Some((
                format!("{layer}.self_attn.{name}.{kind}"),
                stored.part(number, 3)?,
            ))
        });
        parts.collect::<Option<Vec<_>>>().unwrap_or_else(unknown)
    };
    match rest {
        "attn.in_proj_weight" => return fused("weight"),
        "attn.in_proj_bias" => return fused("bias"),
        _ => {}
    }
    const PARTS: [(&str, &str); 5] = [
        ("attn.out_proj.", "self_attn.out_proj."),
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    match PARTS.iter().find(|(old, _)| rest.starts_with(old)) {
        Some((old, new)) => one(format!("{layer}.{}", rest.replacen(old, new, 1))),
        None => unknown(),
    }
}
