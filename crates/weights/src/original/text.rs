//! The text encoder of Stable Diffusion 1.x and the first one of SDXL: transformers' own names below the prefix.

use serde_json::{Value, json};

use super::{Part, Renamed};

/// `text_encoder/config.json`.
pub(super) fn config(part: &Part<'_>) -> Option<Value> {
    const TOKENS: &str = "embeddings.token_embedding.weight";
    // Files written by transformers 5, or by some mergers, lack the first level.
    let level = if part.shape(TOKENS).is_some() {
        ""
    } else {
        "text_model."
    };
    let [vocabulary, width] = *part.shape(&format!("{level}{TOKENS}"))? else {
        return None;
    };
    let positions = format!("{level}embeddings.position_embedding.weight");
    Some(json!({
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": part.size(&format!("{level}encoder.layers.0.mlp.fc1.weight"), 0)?,
        "num_hidden_layers": part.count(&format!("{level}encoder.layers")),
        // CLIP's heads are 64 wide.
        "num_attention_heads": (width / 64).max(1),
        "max_position_embeddings": part.size(&positions, 0)?,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }))
}

/// The tensors by their own names.
pub(super) fn renamed(part: &Part<'_>) -> Renamed {
    part.renamed(|_| None)
}
