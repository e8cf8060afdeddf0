//! The autoencoder between pictures and latents (Kingma and Welling, 2014; diffusers `autoencoder_kl.py`).
//!
//! Rows are taken one at a time, so that a batch needs no more memory than one picture.

mod blocks;
mod config;
mod decoder;
mod encoder;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Activation, Linear, channels_first, channels_last, on_pool};

pub use self::config::VaeConfig;

use self::decoder::Decoder;
use self::encoder::Encoder;
use crate::ModelError;
use crate::error::During;
use crate::layers::pointwise;

/// Encoder and decoder.
#[derive(Debug)]
pub struct Vae {
    encoder: Encoder,
    quant: Option<Linear>,
    post_quant: Option<Linear>,
    decoder: Decoder,
    config: VaeConfig,
}

impl Vae {
    /// Loads the network from `vb`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &VaeConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &vb).during("loading the vae")
    }

    fn load(config: &VaeConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let latent = config.latent_channels;
        let quant = || pointwise(2 * latent, 2 * latent, &vb.pp("quant_conv"));
        let post_quant = || pointwise(latent, latent, &vb.pp("post_quant_conv"));
        Ok(Self {
            encoder: Encoder::new(config, &vb.pp("encoder"))?,
            quant: config.use_quant_conv.then(quant).transpose()?,
            post_quant: config.use_post_quant_conv.then(post_quant).transpose()?,
            decoder: Decoder::new(config, &vb.pp("decoder"))?,
            config: config.clone(),
        })
    }

    /// Sizes and scale of this network.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The distribution of latents of pictures `x` (B, 3, H, W) in -1..1, H and W multiples of
    /// [`VaeConfig::downscale`]: mean and then log variance, (B, 2·latent channels, h, w), unscaled.
    ///
    /// The reference clamps the log variance to -30..20 before it uses it; that is left to the caller.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn encode_moments(&self, x: &Tensor) -> std::result::Result<Tensor, ModelError> {
        let (c, factor) = (self.config.in_channels, self.config.downscale());
        let fits = matches!(*x.dims(), [b, found, h, w]
            if found == c && b * h * w > 0 && h % factor == 0 && w % factor == 0);
        if !fits {
            return Err(ModelError::Shape {
                tensor: "picture",
                found: x.dims().to_vec(),
                expected: format!("(B, {c}, H, W), multiples of {factor}"),
            });
        }
        let encode = |x: &Tensor| {
            let moments = self.encoder.forward(&channels_last(x)?)?;
            channels_first(&match &self.quant {
                Some(quant) => quant.forward(&moments, Activation::None, None)?,
                None => moments,
            })
        };
        on_pool(|| row_by_row(x, encode)).during("encoding a picture")
    }

    /// Pictures (B, 3, H, W), about -1..1, of latents `z` (B, latent channels, h, w) that the caller has divided by
    /// [`VaeConfig::scaling_factor`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn decode(&self, z: &Tensor) -> std::result::Result<Tensor, ModelError> {
        let c = self.config.latent_channels;
        if !matches!(*z.dims(), [b, found, h, w] if found == c && b * h * w > 0) {
            return Err(ModelError::Shape {
                tensor: "latent",
                found: z.dims().to_vec(),
                expected: format!("(B, {c}, h, w)"),
            });
        }
        let decode = |z: &Tensor| {
            let z = channels_last(z)?;
            let z = match &self.post_quant {
                Some(post_quant) => post_quant.forward(&z, Activation::None, None)?,
                None => z,
            };
            channels_first(&self.decoder.forward(&z)?)
        };
        on_pool(|| row_by_row(z, decode)).during("decoding a picture")
    }
}

fn row_by_row(x: &Tensor, forward: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if rows == 1 {
        return forward(x);
    }
    let rows = (0..rows).map(|row| forward(&x.narrow(0, row, 1)?));
    Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
}
