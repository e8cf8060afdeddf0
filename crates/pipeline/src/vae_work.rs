//! A pass of the autoencoder with the autoencoder that it began with.

use std::sync::Arc;

use candle_core::Tensor;
use pentimento_models::{Vae, VaePass};

use crate::img2img::Planes;
use crate::{PipelineError, StableDiffusion};

/// A pass under way. A model may get another autoencoder between two of its slices.
#[derive(Debug)]
pub(crate) struct VaeWork {
    vae: Arc<Vae>,
    pass: VaePass,
    part: &'static str,
}

impl VaeWork {
    /// Does the next slice. None while there are more.
    ///
    /// # Errors
    /// When a stage fails.
    pub(crate) fn advance(&mut self) -> Result<Option<Tensor>, PipelineError> {
        Ok(self.vae.advance(&mut self.pass)?)
    }

    /// What is to be said of a result with NaN or infinity.
    pub(crate) fn not_finite(&self) -> PipelineError {
        PipelineError::VaeNotFinite {
            part: self.part,
            precision: self.vae.precision(),
        }
    }
}

impl StableDiffusion {
    /// Begins to encode an image that is in the VAE's range already.
    pub(crate) fn begin_encode(&self, planes: Planes) -> Result<VaeWork, PipelineError> {
        let vae = Arc::clone(self.vae());
        Ok(VaeWork {
            pass: vae.begin_encode(&planes.into_tensor()?)?,
            vae,
            part: "encoder",
        })
    }

    /// Begins to decode `z` (1, latent channels, h, w), which is in the VAE's range already.
    pub(crate) fn begin_decode_of(&self, z: &Tensor) -> Result<VaeWork, PipelineError> {
        let vae = Arc::clone(self.vae());
        Ok(VaeWork {
            pass: vae.begin_decode(z)?,
            vae,
            part: "decoder",
        })
    }
}
