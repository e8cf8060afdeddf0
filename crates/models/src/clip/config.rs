//! The text encoder's `config.json`.

use serde::Deserialize;

use crate::config::{divides, only};

/// The activation inside the text encoder's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum HiddenAct {
    /// x · sigmoid(1.702 x): OpenAI's CLIP.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// x · Φ(x): OpenCLIP, in Stable Diffusion 2 and as the second encoder of SDXL.
    #[serde(rename = "gelu")]
    Gelu,
}

/// Sizes of a CLIP text encoder. Absent keys have transformers' defaults; unknown keys are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawConfig")]
#[non_exhaustive]
pub struct ClipTextConfig {
    /// Number of tokens known.
    pub vocab_size: usize,
    /// Width D of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Number of positions: the longest text in tokens, 77.
    pub max_position_embeddings: usize,
    /// Width P of the pooled state, of encoders that have one.
    pub projection_dim: usize,
    pub(crate) layer_norm_eps: f32,
    pub(crate) hidden_act: HiddenAct,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default = "vocab_size")]
    vocab_size: usize,
    #[serde(default = "hidden_size")]
    hidden_size: usize,
    #[serde(default = "intermediate_size")]
    intermediate_size: usize,
    #[serde(default = "num_hidden_layers")]
    num_hidden_layers: usize,
    #[serde(default = "num_attention_heads")]
    num_attention_heads: usize,
    #[serde(default = "max_position_embeddings")]
    max_position_embeddings: usize,
    #[serde(default = "projection_dim")]
    projection_dim: usize,
    #[serde(default = "layer_norm_eps")]
    layer_norm_eps: f32,
    #[serde(default = "hidden_act")]
    hidden_act: HiddenAct,
    use_attention_mask: Option<serde_json::Value>,
}

// transformers' CLIPTextConfig.
fn vocab_size() -> usize {
    49408
}
fn hidden_size() -> usize {
    512
}
fn intermediate_size() -> usize {
    2048
}
fn num_hidden_layers() -> usize {
    12
}
fn num_attention_heads() -> usize {
    8
}
fn max_position_embeddings() -> usize {
    77
}
fn projection_dim() -> usize {
    512
}
fn layer_norm_eps() -> f32 {
    1e-5
}
fn hidden_act() -> HiddenAct {
    HiddenAct::QuickGelu
}

impl TryFrom<RawConfig> for ClipTextConfig {
    type Error = String;

    fn try_from(raw: RawConfig) -> Result<Self, String> {
        only(
            "use_attention_mask",
            raw.use_attention_mask.as_ref(),
            &false.into(),
        )?;
        divides(raw.num_attention_heads, "num_attention_heads", &[raw.hidden_size])?;
        if raw.num_hidden_layers == 0 || raw.vocab_size == 0 || raw.max_position_embeddings == 0 {
            return Err("`num_hidden_layers`, `vocab_size` or `max_position_embeddings` is zero".to_owned());
        }
        Ok(Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            max_position_embeddings: raw.max_position_embeddings,
            projection_dim: raw.projection_dim,
            layer_norm_eps: raw.layer_norm_eps,
            hidden_act: raw.hidden_act,
        })
    }
}
