//! The image encoder's `config.json`.

use serde::Deserialize;

use super::config::HiddenAct;
use crate::config::{divides, only};

/// The most pixels on a side of a picture; published encoders take 224 to 448.
const MOST_PIXELS: usize = 1024;
/// The most patches that a picture is cut into: sixteen times those of the published encoders.
const MOST_PATCHES: usize = 64 * 64;

/// Sizes of a CLIP image encoder. Absent keys have transformers' defaults; unknown keys are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawConfig")]
#[non_exhaustive]
pub struct ClipVisionConfig {
    /// Width D of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Width P of the image embedding.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Pixels of a picture's side: 224.
    pub image_size: usize,
    /// Pixels of a patch's side: 14.
    pub patch_size: usize,
    pub(crate) layer_norm_eps: f32,
    pub(crate) hidden_act: HiddenAct,
}

impl ClipVisionConfig {
    /// Tokens S of a picture: one for each patch, and the class token before them.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side + 1
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default = "hidden_size")]
    hidden_size: usize,
    #[serde(default = "intermediate_size")]
    intermediate_size: usize,
    #[serde(default = "projection_dim")]
    projection_dim: usize,
    #[serde(default = "twelve")]
    num_hidden_layers: usize,
    #[serde(default = "twelve")]
    num_attention_heads: usize,
    #[serde(default = "image_size")]
    image_size: usize,
    #[serde(default = "patch_size")]
    patch_size: usize,
    #[serde(default = "layer_norm_eps")]
    layer_norm_eps: f32,
    #[serde(default = "hidden_act")]
    hidden_act: HiddenAct,
    num_channels: Option<serde_json::Value>,
}

// transformers' CLIPVisionConfig.
fn hidden_size() -> usize {
    768
}
fn intermediate_size() -> usize {
    3072
}
fn projection_dim() -> usize {
    512
}
fn twelve() -> usize {
    12
}
fn image_size() -> usize {
    224
}
fn patch_size() -> usize {
    32
}
fn layer_norm_eps() -> f32 {
    1e-5
}
fn hidden_act() -> HiddenAct {
    HiddenAct::QuickGelu
}

impl TryFrom<RawConfig> for ClipVisionConfig {
    type Error = String;

    fn try_from(raw: RawConfig) -> Result<Self, String> {
        only("num_channels", raw.num_channels.as_ref(), &3.into())?;
        divides(raw.num_attention_heads, "num_attention_heads", &[raw.hidden_size])?;
        divides(raw.patch_size, "patch_size", &[raw.image_size])?;
        if raw.image_size > MOST_PIXELS {
            return Err(format!(
                "`image_size` is {}, and at most {MOST_PIXELS} are taken",
                raw.image_size
            ));
        }
        let side = raw.image_size / raw.patch_size;
        if side.saturating_mul(side) > MOST_PATCHES {
            return Err(format!(
                "`image_size` {} has {side} patches of `patch_size` {} in a line, and at most {MOST_PATCHES} in all are taken",
                raw.image_size, raw.patch_size
            ));
        }
        if raw.num_hidden_layers == 0 || raw.intermediate_size == 0 || raw.projection_dim == 0 {
            return Err("`num_hidden_layers`, `intermediate_size` or `projection_dim` is zero".to_owned());
        }
        Ok(Self {
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            projection_dim: raw.projection_dim,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            image_size: raw.image_size,
            patch_size: raw.patch_size,
            layer_norm_eps: raw.layer_norm_eps,
            hidden_act: raw.hidden_act,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<ClipVisionConfig, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn absent_keys_are_transformers_defaults_and_what_is_not_built_is_named() {
        let vit_h =
            read(serde_json::json!({"hidden_size": 1280, "num_attention_heads": 16, "patch_size": 14}));
        assert_eq!(vit_h.unwrap().tokens(), 257);
        for (key, value) in [
            ("patch_size", 15),
            ("patch_size", 1),
            ("num_attention_heads", 7),
            ("num_channels", 1),
            ("num_hidden_layers", 0),
        ] {
            let error = read(serde_json::json!({ key: value })).unwrap_err();
            assert!(error.contains(key), "{key}: {error}");
        }
        assert!(read(serde_json::json!({"hidden_act": "relu"})).is_err());
    }
}
