//! The third act: latents into a picture.

use candle_core::Tensor;
use pentimento_types::RgbPicture;

use crate::denoise::not_finite;
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion, img2img};

impl StableDiffusion {
    /// Decodes one picture, of exactly the size of its input.
    ///
    /// A picture without evaluations (strength 0) is its input, pixel for pixel, and so is the kept part of an inpainted
    /// one.
    ///
    /// # Errors
    /// When the forward fails or the result is not finite.
    pub fn finish(&self, state: DenoiseState) -> Result<RgbPicture, PipelineError> {
        if state.broken {
            return Err(not_finite(state.kind, state.done));
        }
        if state.evaluations == 0 {
            return Ok(RgbPicture::clone(&state.init));
        }
        let made = self
            .decode(state.scheduler.latents(), &state.init)?
            .ok_or_else(|| PipelineError::NotFinite {
                scheduler: "VAE decoder".to_owned(),
                evaluation: state.done,
            })?;
        Ok(match &state.inpainting {
            Some(inpainting) => inpainting.composite(&state.init, made),
            None => made,
        })
    }

    /// Latents `(1, 4, h, w)` into a picture of `like`'s size; None when the decoder's output is not finite.
    fn decode(&self, latents: &Tensor, like: &RgbPicture) -> Result<Option<RgbPicture>, PipelineError> {
        let z = (latents / self.vae.config().scaling_factor)?.to_dtype(self.dtype)?;
        let decoded = self.vae.decode(&z)?;
        Ok(img2img::to_picture(&decoded, like.size())?)
    }
}
