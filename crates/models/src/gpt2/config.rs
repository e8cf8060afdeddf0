//! GPT-2's `config.json`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{divides, only};

/// Bounds of what is built: twice the largest published model in each direction, so that no file makes us allocate without end.
const MOST_LAYERS: usize = 96;
const MOST_WIDTH: usize = 3200;
const MOST_POSITIONS: usize = 8192;
const MOST_TOKENS: usize = 200_000;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Gpt2Config {
    /// Tokens of the vocabulary, V.
    pub vocab_size: usize,
    /// The longest text in tokens, P.
    pub n_positions: usize,
    /// Width, D.
    pub n_embd: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Heads, which divide D.
    pub n_head: usize,
    /// Width inside the feed-forward layers; 4 D unless the file says another.
    pub n_inner: usize,
    /// Of every norm.
    pub layer_norm_epsilon: f64,
}

/// As the file has them.
#[derive(Deserialize)]
struct Fields {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    layer_norm_epsilon: Option<f64>,
    activation_function: Option<Value>,
    scale_attn_weights: Option<Value>,
    scale_attn_by_inverse_layer_idx: Option<Value>,
    add_cross_attention: Option<Value>,
    model_type: Option<Value>,
}

impl TryFrom<Fields> for Gpt2Config {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        only("model_type", fields.model_type.as_ref(), &json!("gpt2"))?;
        only(
            "activation_function",
            fields.activation_function.as_ref(),
            &json!("gelu_new"),
        )?;
        only(
            "scale_attn_weights",
            fields.scale_attn_weights.as_ref(),
            &json!(true),
        )?;
        only(
            "scale_attn_by_inverse_layer_idx",
            fields.scale_attn_by_inverse_layer_idx.as_ref(),
            &json!(false),
        )?;
        only(
            "add_cross_attention",
            fields.add_cross_attention.as_ref(),
            &json!(false),
        )?;
        divides(fields.n_head, "n_head", &[fields.n_embd])?;
        let n_inner = fields.n_inner.unwrap_or(fields.n_embd.saturating_mul(4));
        for (name, found, most) in [
            ("n_layer", fields.n_layer, MOST_LAYERS),
            ("n_embd", fields.n_embd, MOST_WIDTH),
            ("n_inner", n_inner, 4 * MOST_WIDTH),
            ("n_positions", fields.n_positions, MOST_POSITIONS),
            ("vocab_size", fields.vocab_size, MOST_TOKENS),
        ] {
            if !(1..=most).contains(&found) {
                return Err(format!("`{name}` is {found}, and 1 to {most} are supported"));
            }
        }
        Ok(Self {
            vocab_size: fields.vocab_size,
            n_positions: fields.n_positions,
            n_embd: fields.n_embd,
            n_layer: fields.n_layer,
            n_head: fields.n_head,
            n_inner,
            layer_norm_epsilon: fields.layer_norm_epsilon.unwrap_or(1e-5),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_refused_by_its_field() {
        let good = json!({"vocab_size": 10, "n_positions": 8, "n_embd": 6, "n_layer": 1, "n_head": 3});
        let read = |field: &str, value: Value| {
            let mut config = good.clone();
            config[field] = value;
            serde_json::from_value::<Gpt2Config>(config).map_err(|error| error.to_string())
        };
        assert_eq!(read("n_layer", json!(2)).unwrap().n_inner, 24);
        for (field, value) in [
            ("n_head", json!(4)),
            ("n_head", json!(0)),
            ("n_layer", json!(1_000_000)),
            ("n_embd", json!(usize::MAX / 3 * 3)),
            ("vocab_size", json!(0)),
            ("activation_function", json!("relu")),
            ("model_type", json!("llama")),
        ] {
            let error = read(field, value).unwrap_err();
            assert!(error.contains(field), "{field}: {error}");
        }
    }
}
