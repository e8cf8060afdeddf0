//! The text encoder of Stable Diffusion 1.x: transformers' own names below the prefix.

use serde_json::{Value, json};

use super::{Part, Renamed};

/// `text_encoder/config.json`.
pub(super) fn config(part: &Part<'_>) -> Option<Value> {
    let [vocabulary, width] = *part.shape("text_model.embeddings.token_embedding.weight")? else {
        return None;
    };
    Some(json!({
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": part.size("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": part.count("text_model.encoder.layers"),
        // CLIP's heads are 64 wide.
        "num_attention_heads": (width / 64).max(1),
        "max_position_embeddings": part.size("text_model.embeddings.position_embedding.weight", 0)?,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }))
}

/// The tensors by their own names.
pub(super) fn renamed(part: &Part<'_>) -> Renamed {
    part.renamed(|_| None)
}
