//! The autoencoder between images and latents (Kingma and Welling, 2014; diffusers `autoencoder_kl.py`).
//!
//! Rows are taken one at a time, so that a batch needs no more memory than one image.

mod blocks;
mod config;
mod pass;
mod stages;
mod tiny;
mod way;

pub use self::config::{LatentNormalisation, VaeConfig};
pub use self::pass::VaePass;

use self::stages::Stages;
use self::way::Way;
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    HostTensor, Layer, LayerName, LayerShape, LayerSource, Linear, Precision, Programs, Result, each_spec,
    size_bytes,
};

/// Encoder and decoder.
#[derive(Debug)]
pub struct Vae {
    encoder: Stages,
    quant: Option<Linear>,
    post_quant: Option<Linear>,
    decoder: Stages,
    config: VaeConfig,
    precision: Precision,
    /// By way and stage; no stage is what comes before the first.
    programs: Programs<(Way, Option<usize>)>,
}

impl Vae {
    /// Loads the network from `from`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &VaeConfig, from: LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &from).during("loading the vae")
    }

    fn load(config: &VaeConfig, from: &LayerSource<'_>) -> Result<Self> {
        if let Some(tiny) = &config.tiny {
            return Ok(Self {
                encoder: Stages::tiny_encoder(config, tiny, &from.pp("encoder"))?,
                quant: None,
                post_quant: None,
                decoder: Stages::tiny_decoder(config, tiny, &from.pp("decoder"))?,
                config: config.clone(),
                precision: from.device().precision(),
                programs: Programs::new(from.device()),
            });
        }
        let latent = config.latent_channels;
        let quant = || Linear::pointwise(2 * latent, 2 * latent, &from.pp("quant_conv"));
        let post_quant = || Linear::pointwise(latent, latent, &from.pp("post_quant_conv"));
        Ok(Self {
            encoder: Stages::encoder(config, &from.pp("encoder"))?,
            quant: config.use_quant_conv.then(quant).transpose()?,
            post_quant: config.use_post_quant_conv.then(post_quant).transpose()?,
            decoder: Stages::decoder(config, &from.pp("decoder"))?,
            config: config.clone(),
            precision: from.device().precision(),
            programs: Programs::new(from.device()),
        })
    }

    /// Sizes and scale of this network.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The numbers between its layers.
    #[must_use]
    pub const fn precision(&self) -> Precision {
        self.precision
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
    /// [`VaeConfig::downscale`]: mean and then log variance, (B, 2·latent channels, h, w), unscaled. Of a tiny autoencoder,
    /// [`VaeConfig::is_exact`], the latents themselves, (B, latent channels, h, w).
    ///
    /// The reference clamps the log variance to -30..20 before it uses it; that is left to the caller.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn encode_moments(&self, x: &HostTensor) -> std::result::Result<HostTensor, ModelError> {
        self.row_by_row(x, |row| self.begin_encode(row))
    }

    /// Images (B, 3, H, W), about -1..1, of latents `z` (B, latent channels, h, w) that the caller has divided by
    /// [`VaeConfig::scaling_factor`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn decode(&self, z: &HostTensor) -> std::result::Result<HostTensor, ModelError> {
        self.row_by_row(z, |row| self.begin_decode(row))
    }

    fn row_by_row(
        &self,
        x: &HostTensor,
        begin: impl Fn(&HostTensor) -> std::result::Result<VaePass, ModelError>,
    ) -> std::result::Result<HostTensor, ModelError> {
        let run = |x: &HostTensor| {
            let mut pass = begin(x)?;
            loop {
                if let Some(y) = self.advance(&mut pass)? {
                    return Ok(y);
                }
            }
        };
        let rows = x.dims().first().copied().unwrap_or(0);
        if rows < 2 {
            return run(x);
        }
        let rows = (0..rows).map(|row| run(&x.narrow(0, row, 1).during("taking rows apart")?));
        let rows = rows.collect::<std::result::Result<Vec<_>, _>>()?;
        HostTensor::cat(&rows, 0).during("putting rows together")
    }
}
