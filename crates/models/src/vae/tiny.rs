//! Tiny autoencoders: TAESD and its family (Bohan, 2023; diffusers `autoencoder_tiny.py`), convolutions and ReLU, distilled
//! from the encoder and decoder of a large one.
//!
//! What is encoded is the latent itself and no distribution. A variant has a norm in the innermost blocks (TAEF2).

use serde::Deserialize;
use serde_json::json;

use crate::config::only;
use crate::layers::{
    Conv2d, ConvFusion, GroupNorm, Layer, LayerSource, Linear, Result, Stride, Tensor, relu,
};

/// Numbers of blocks and the width of a tiny autoencoder.
#[derive(Clone, Debug)]
pub(super) struct TinyConfig {
    pub(super) width: usize,
    /// Of each level, from the image inwards.
    pub(super) encoder_blocks: Vec<usize>,
    /// Of each level, from the latent outwards.
    pub(super) decoder_blocks: Vec<usize>,
    /// Whether the innermost blocks have a norm.
    pub(super) inner_norm: bool,
}

/// `config.json` as diffusers writes it, and `use_midblock_gn` as TAEF2's users call it.
#[derive(Deserialize)]
pub(super) struct RawTiny {
    #[serde(default = "three")]
    pub(super) in_channels: usize,
    #[serde(default = "three")]
    pub(super) out_channels: usize,
    #[serde(default = "four")]
    pub(super) latent_channels: usize,
    #[serde(default = "widths")]
    encoder_block_out_channels: Vec<usize>,
    #[serde(default = "widths")]
    decoder_block_out_channels: Vec<usize>,
    #[serde(default = "encoder_blocks")]
    num_encoder_blocks: Vec<usize>,
    #[serde(default = "decoder_blocks")]
    num_decoder_blocks: Vec<usize>,
    #[serde(default = "one")]
    pub(super) scaling_factor: f64,
    #[serde(default)]
    pub(super) shift_factor: Option<f64>,
    #[serde(default)]
    use_midblock_gn: bool,
    act_fn: Option<serde_json::Value>,
    upsample_fn: Option<serde_json::Value>,
    upsampling_scaling_factor: Option<serde_json::Value>,
}

// diffusers' AutoencoderTiny.
fn three() -> usize {
    3
}
fn four() -> usize {
    4
}
fn one() -> f64 {
    1.0
}
fn widths() -> Vec<usize> {
    vec![64; 4]
}
fn encoder_blocks() -> Vec<usize> {
    vec![1, 3, 3, 3]
}
fn decoder_blocks() -> Vec<usize> {
    vec![3, 3, 3, 1]
}

impl RawTiny {
    pub(super) fn network(&self) -> std::result::Result<TinyConfig, String> {
        only("act_fn", self.act_fn.as_ref(), &json!("relu"))?;
        only("upsample_fn", self.upsample_fn.as_ref(), &json!("nearest"))?;
        only(
            "upsampling_scaling_factor",
            self.upsampling_scaling_factor.as_ref(),
            &json!(2),
        )?;
        let levels = self.num_encoder_blocks.len();
        for (field, found) in [
            ("num_decoder_blocks", self.num_decoder_blocks.len()),
            (
                "encoder_block_out_channels",
                self.encoder_block_out_channels.len(),
            ),
            (
                "decoder_block_out_channels",
                self.decoder_block_out_channels.len(),
            ),
        ] {
            if found != levels {
                return Err(format!("`{field}` has {found} entries, expected {levels}"));
            }
        }
        let mut widths = self
            .encoder_block_out_channels
            .iter()
            .chain(&self.decoder_block_out_channels);
        let width = widths.next().copied().unwrap_or(0);
        if widths.any(|other| *other != width) {
            return Err(
                "`encoder_block_out_channels` and `decoder_block_out_channels` must be one width".to_owned(),
            );
        }
        let blocks = self.num_encoder_blocks.iter().chain(&self.num_decoder_blocks);
        if !(1..=8).contains(&levels) || width == 0 || blocks.max().is_none_or(|blocks| *blocks > 64) {
            return Err("a number of levels, blocks or channels is zero or out of range".to_owned());
        }
        Ok(TinyConfig {
            width,
            encoder_blocks: self.num_encoder_blocks.clone(),
            decoder_blocks: self.num_decoder_blocks.clone(),
            inner_norm: self.use_midblock_gn,
        })
    }
}

/// A convolution at an end, with what the ends of these networks do beside it.
#[derive(Debug)]
pub(super) enum End {
    /// From an image in -1..1, as everybody else has it, and not in 0..1 as this network wants it.
    Image(Conv2d),
    /// From a latent, which is kept within about ±3.
    Latent(Conv2d),
    /// To an image in -1..1.
    Out(Conv2d),
}

impl End {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let plain = ConvFusion::default();
        match self {
            Self::Image(conv) => conv.forward(&x.affine(0.5, 0.5)?, plain),
            Self::Latent(conv) => {
                let x = x.affine(1.0 / 3.0, 0.0)?.tanh()?.affine(3.0, 0.0)?;
                relu(conv.forward(&x, plain)?)
            }
            Self::Out(conv) => conv.forward(x, plain)?.affine(2.0, -1.0),
        }
    }

    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        match self {
            Self::Image(conv) | Self::Latent(conv) | Self::Out(conv) => visit(conv),
        }
    }
}

/// Three convolutions with ReLU between them, a residual, ReLU.
#[derive(Debug)]
pub(super) struct Block {
    pool: Option<Pool>,
    convs: [Conv2d; 3],
}

impl Block {
    pub(super) fn new(width: usize, has_norm: bool, from: &LayerSource<'_>) -> Result<Self> {
        let conv = |number: usize| Conv2d::new(width, width, Stride::One, &from.pp("conv").pp(number));
        let pool = || Pool::new(width, &from.pp("pool"));
        Ok(Self {
            pool: has_norm.then(pool).transpose()?,
            convs: [conv(0)?, conv(2)?, conv(4)?],
        })
    }

    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = match &self.pool {
            Some(pool) => pool.forward_add(&x)?,
            None => x,
        };
        let [first, second, third] = &self.convs;
        let y = relu(first.forward(&x, ConvFusion::default())?)?;
        let y = relu(second.forward(&y, ConvFusion::default())?)?;
        let fusion = ConvFusion {
            residual: Some(&x),
            ..ConvFusion::default()
        };
        relu(third.forward(&y, fusion)?)
    }

    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        if let Some(pool) = &self.pool {
            visit(&pool.wide);
            visit(&pool.norm);
            visit(&pool.narrow);
        }
        self.convs.iter().for_each(|conv| visit(conv));
    }
}

/// What tells a pixel about all others: four times as wide, a norm over the picture in four groups, ReLU, and back.
#[derive(Debug)]
struct Pool {
    wide: Linear,
    norm: GroupNorm,
    narrow: Linear,
}

impl Pool {
    fn new(width: usize, from: &LayerSource<'_>) -> Result<Self> {
        Ok(Self {
            wide: Linear::pointwise_without_bias(width, 4 * width, &from.pp(0))?,
            norm: GroupNorm::new(4, 4 * width, 1e-5, &from.pp(1))?,
            narrow: Linear::pointwise_without_bias(4 * width, width, &from.pp(3))?,
        })
    }

    fn forward_add(&self, x: &Tensor) -> Result<Tensor> {
        let wide = relu(self.norm.forward(&self.wide.forward(x)?)?)?;
        self.narrow.forward_add(&wide, x)
    }
}
