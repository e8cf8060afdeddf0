//! The third act: latents into an image.

use candle_core::Tensor;
use pentimento_schedulers::Latents;
use pentimento_types::RgbImage;

use crate::denoise::not_finite;
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion, img2img};

impl StableDiffusion {
    /// Decodes one image, of exactly the size of its input.
    ///
    /// An image without evaluations (strength 0) is its input, pixel for pixel, and so is the kept part of an inpainted
    /// one.
    ///
    /// # Errors
    /// When the forward fails or the result is not finite.
    pub fn finish(&self, state: DenoiseState) -> Result<RgbImage, PipelineError> {
        if state.broken {
            return Err(not_finite(state.kind, state.done));
        }
        if state.evaluations == 0 {
            return Ok(RgbImage::clone(&state.init));
        }
        let made = self
            .decode(state.latents(), &state.init)?
            .ok_or_else(|| PipelineError::NotFinite {
                scheduler: "VAE decoder".to_owned(),
                evaluation: state.done,
            })?;
        Ok(match &state.inpainting {
            Some(inpainting) => inpainting.composite(&state.init, made),
            None => made,
        })
    }

    /// Latents `[4, h, w]` into an image of `like`'s size; None when the decoder's output is not finite.
    fn decode(&self, latents: &Latents, like: &RgbImage) -> Result<Option<RgbImage>, PipelineError> {
        let [channels, h, w] = latents.shape();
        let latents = latents.clone().scaled(1.0 / self.vae.config().scaling_factor);
        let z = Tensor::from_vec(latents.into_values(), (1, channels, h, w), &self.device)?;
        let decoded = self.vae.decode(&z.to_dtype(self.dtype)?)?;
        Ok(img2img::to_image(&decoded, like.size())?)
    }
}
