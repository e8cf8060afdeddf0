//! The autoencoder's `config.json`. What we do not build is refused here, by the field's name.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tiny::{RawTiny, TinyConfig};
use crate::config::{divides, only};

/// Sizes of an autoencoder. Absent keys have diffusers' defaults where Stable Diffusion 1.x agrees with them; which network it
/// is says `_class_name`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct VaeConfig {
    /// Channels of an image: 3.
    pub in_channels: usize,
    /// Channels of a decoded image: 3.
    pub out_channels: usize,
    /// Channels of a latent: 4.
    pub latent_channels: usize,
    /// Width of each level, outermost first.
    pub block_out_channels: Vec<usize>,
    /// What a latent is multiplied by for the UNet: 0.18215.
    pub scaling_factor: f64,
    /// What is subtracted from a latent before that: 0.
    pub shift_factor: f64,
    /// Mean and standard deviation of each channel of a latent, which the UNet sees with both taken out.
    pub normalisation: Option<LatentNormalisation>,
    /// Whether SDXL wants it in f32 whatever the device's precision is, since its activations leave the range of f16.
    pub force_upcast: bool,
    /// Present for a tiny autoencoder, which has none of what follows.
    pub(super) tiny: Option<TinyConfig>,
    pub(crate) layers_per_block: usize,
    pub(crate) norm_num_groups: usize,
    pub(crate) mid_block_add_attention: bool,
    pub(crate) use_quant_conv: bool,
    pub(crate) use_post_quant_conv: bool,
}

impl VaeConfig {
    /// Image pixels per latent pixel along a side: 8 for four levels.
    #[must_use]
    pub fn downscale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Whether what it encodes is the latent itself, and not a distribution to take a sample of.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.tiny.is_some()
    }
}

/// `latents_mean` and `latents_std`: one number for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentNormalisation {
    /// Subtracted on the way to the UNet.
    pub mean: Vec<f32>,
    /// What it is divided by after that.
    pub std: Vec<f32>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default = "three")]
    in_channels: usize,
    #[serde(default = "three")]
    out_channels: usize,
    #[serde(default = "latent_channels")]
    latent_channels: usize,
    block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    #[serde(default = "scaling_factor")]
    scaling_factor: f64,
    shift_factor: Option<f64>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
    #[serde(default = "layers_per_block")]
    layers_per_block: usize,
    #[serde(default = "norm_num_groups")]
    norm_num_groups: usize,
    #[serde(default = "yes")]
    mid_block_add_attention: bool,
    #[serde(default = "yes")]
    use_quant_conv: bool,
    #[serde(default = "yes")]
    use_post_quant_conv: bool,
    #[serde(default = "yes")]
    force_upcast: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

// diffusers' AutoencoderKL.
fn three() -> usize {
    3
}
fn latent_channels() -> usize {
    4
}
fn scaling_factor() -> f64 {
    0.18215
}
fn layers_per_block() -> usize {
    1
}
fn norm_num_groups() -> usize {
    32
}
fn yes() -> bool {
    true
}

impl TryFrom<Value> for VaeConfig {
    type Error = String;

    fn try_from(config: Value) -> Result<Self, String> {
        let class = config.get("_class_name").and_then(Value::as_str);
        if class == Some("AutoencoderTiny") {
            let raw: RawTiny = serde_json::from_value(config).map_err(|error| error.to_string())?;
            return Self::try_from(raw);
        }
        let raw: RawConfig = serde_json::from_value(config).map_err(|error| error.to_string())?;
        Self::try_from(raw)
    }
}

impl TryFrom<RawTiny> for VaeConfig {
    type Error = String;

    fn try_from(raw: RawTiny) -> Result<Self, String> {
        let tiny = raw.network()?;
        let (scaling_factor, shift_factor) = factors(raw.scaling_factor, raw.shift_factor)?;
        if [raw.in_channels, raw.out_channels, raw.latent_channels].contains(&0) {
            return Err("a number of channels is zero".to_owned());
        }
        Ok(Self {
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            latent_channels: raw.latent_channels,
            block_out_channels: vec![tiny.width; tiny.encoder_blocks.len()],
            scaling_factor,
            shift_factor,
            normalisation: None,
            force_upcast: false,
            tiny: Some(tiny),
            layers_per_block: 0,
            norm_num_groups: 1,
            mid_block_add_attention: false,
            use_quant_conv: false,
            use_post_quant_conv: false,
        })
    }
}

/// Both lists, where they are usable. One alone has no effect in diffusers, and none here.
fn normalisation(
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    channels: usize,
) -> Result<Option<LatentNormalisation>, String> {
    let (Some(mean), Some(std)) = (mean, std) else {
        return Ok(None);
    };
    let fits = mean.len() == channels && std.len() == channels;
    if !fits || mean.iter().any(|x| !x.is_finite()) || std.iter().any(|x| !(x.is_finite() && *x > 0.0)) {
        return Err(format!(
            "`latents_mean` and `latents_std` are not {channels} numbers each, or one is out of range"
        ));
    }
    Ok(Some(LatentNormalisation { mean, std }))
}

/// Both factors, where they are usable.
fn factors(scaling: f64, shift: Option<f64>) -> Result<(f64, f64), String> {
    let shift = shift.unwrap_or(0.0);
    if !(scaling.is_finite() && scaling > 0.0 && shift.is_finite()) {
        return Err("`scaling_factor` or `shift_factor` is zero or out of range".to_owned());
    }
    Ok((scaling, shift))
}

impl TryFrom<RawConfig> for VaeConfig {
    type Error = String;

    fn try_from(raw: RawConfig) -> Result<Self, String> {
        only("act_fn", raw.rest.get("act_fn"), &json!("silu"))?;
        divides(raw.norm_num_groups, "norm_num_groups", &raw.block_out_channels)?;
        let levels = raw.block_out_channels.len();
        for (field, found, supported) in [
            ("down_block_types", &raw.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &raw.up_block_types, "UpDecoderBlock2D"),
        ] {
            if let Some(other) = found.iter().find(|kind| *kind != supported) {
                return Err(format!(
                    "`{field}` has \"{other}\", only \"{supported}\" is supported"
                ));
            }
            if found.len() != levels {
                return Err(format!(
                    "`{field}` has {} entries, expected {levels}",
                    found.len()
                ));
            }
        }
        let sizes = [
            raw.in_channels,
            raw.out_channels,
            raw.latent_channels,
            raw.layers_per_block,
        ];
        if sizes.contains(&0) || levels > 8 {
            return Err("a size is zero or out of range".to_owned());
        }
        let (scaling_factor, shift_factor) = factors(raw.scaling_factor, raw.shift_factor)?;
        Ok(Self {
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            latent_channels: raw.latent_channels,
            block_out_channels: raw.block_out_channels,
            scaling_factor,
            shift_factor,
            normalisation: normalisation(raw.latents_mean, raw.latents_std, raw.latent_channels)?,
            force_upcast: raw.force_upcast,
            tiny: None,
            layers_per_block: raw.layers_per_block,
            norm_num_groups: raw.norm_num_groups,
            mid_block_add_attention: raw.mid_block_add_attention,
            use_quant_conv: raw.use_quant_conv,
            use_post_quant_conv: raw.use_post_quant_conv,
        })
    }
}
