//! The autoencoder between images and latents (Kingma and Welling, 2014; diffusers `autoencoder_kl.py`).
//!
//! Rows are taken one at a time, so that a batch needs no more memory than one image.

mod blocks;
mod config;
mod decoder;
mod encoder;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

pub use self::config::VaeConfig;

use self::decoder::Decoder;
use self::encoder::Encoder;
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    Layer, LayerName, LayerShape, Linear, channels_first, channels_last, each_spec, on_pool, size_bytes,
};

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
        let quant = || Linear::pointwise(2 * latent, 2 * latent, &vb.pp("quant_conv"));
        let post_quant = || Linear::pointwise(latent, latent, &vb.pp("post_quant_conv"));
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

    /// Calls `visit` with every layer of the checkpoint, in the order in which they run.
    pub fn layers(&self, visit: &mut dyn FnMut(&LayerName, LayerShape)) {
        each_spec(|visit| self.walk(visit), visit);
    }

    /// Bytes that the weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        size_bytes(|visit| self.walk(visit))
    }

    fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        self.encoder.walk(visit);
        for layer in [&self.quant, &self.post_quant].into_iter().flatten() {
            visit(layer);
        }
        self.decoder.walk(visit);
    }

    /// The distribution of latents of images `x` (B, 3, H, W) in -1..1, H and W multiples of
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
                tensor: "image",
                found: x.dims().to_vec(),
                expected: format!("(B, {c}, H, W), multiples of {factor}"),
            });
        }
        let encode = |x: &Tensor| {
            let moments = self.encoder.forward(&channels_last(x)?)?;
            channels_first(&match &self.quant {
                Some(quant) => quant.forward(&moments)?,
                None => moments,
            })
        };
        on_pool(|| row_by_row(x, encode)).during("encoding an image")
    }

    /// Images (B, 3, H, W), about -1..1, of latents `z` (B, latent channels, h, w) that the caller has divided by
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
                Some(post_quant) => post_quant.forward(&z)?,
                None => z,
            };
            channels_first(&self.decoder.forward(&z)?)
        };
        on_pool(|| row_by_row(z, decode)).during("decoding an image")
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
