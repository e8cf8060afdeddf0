//! The third act: latents into an image, in slices as the first one.
//!
//! A slice is a stage of the VAE's decoder, and takes no longer than one evaluation of an image of the same size.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use pentimento_schedulers::Latents;
use pentimento_types::{RgbImage, Size};

use crate::denoise::not_finite;
use crate::inpainting::Inpainting;
use crate::state::DenoiseState;
use crate::vae_work::VaeWork;
use crate::{PipelineError, StableDiffusion, img2img};

/// How far a finish is after a slice.
#[derive(Debug)]
pub enum FinishStep {
    /// There are more slices.
    Continue,
    /// The image.
    Done(RgbImage),
}

/// An image on its way from latents to pixels, begun by [`StableDiffusion::begin_finish`].
#[derive(Debug)]
pub struct Finishing(Way);

/// How the result comes about.
#[derive(Debug)]
enum Way {
    /// It is the input.
    Input(Arc<RgbImage>),
    /// It is decoded.
    Decoding(Box<Decoding>),
}

#[derive(Debug)]
struct Decoding {
    /// None where it could not be begun again.
    pass: Option<VaeWork>,
    /// What the pass has begun with.
    latents: Latents,
    size: Size,
    /// What is put back into it, and of which image.
    kept: Option<(Inpainting, Arc<RgbImage>)>,
}

impl StableDiffusion {
    /// Begins to decode one image.
    ///
    /// # Errors
    /// When the latents are not finite.
    pub fn begin_finish(&self, state: DenoiseState) -> Result<Finishing, PipelineError> {
        if state.broken {
            return Err(not_finite(state.kind, state.done));
        }
        let pass = match (state.evaluations, &state.init) {
            (0, Some(init)) => return Ok(Finishing(Way::Input(Arc::clone(init)))),
            _ => self.begin_decode(state.latents())?,
        };
        Ok(Finishing(Way::Decoding(Box::new(Decoding {
            pass: Some(pass),
            latents: state.latents().clone(),
            size: state.size,
            kept: state.inpainting.zip(state.init),
        }))))
    }

    /// Begins anew, with nothing held meanwhile: for a finish one of whose slices found no memory, or whose autoencoder left the range
    /// of its numbers and was replaced.
    ///
    /// # Errors
    /// As [`StableDiffusion::begin_finish`].
    pub fn begin_finish_again(&self, finishing: &mut Finishing) -> Result<(), PipelineError> {
        if let Way::Decoding(decoding) = &mut finishing.0 {
            decoding.pass = None;
            decoding.pass = Some(self.begin_decode(&decoding.latents)?);
        }
        Ok(())
    }

    /// Does the next slice. The image has exactly the size of its input, or that which was asked for.
    ///
    /// An image without evaluations (strength 0) is its input, pixel for pixel, and so is the kept part of an inpainted
    /// one.
    ///
    /// # Errors
    /// When a stage fails or the result is not finite; there is nothing to go on with then.
    pub fn advance_finish(&self, finishing: &mut Finishing) -> Result<FinishStep, PipelineError> {
        let decoding = match &mut finishing.0 {
            Way::Input(init) => return Ok(FinishStep::Done(RgbImage::clone(init))),
            Way::Decoding(decoding) => decoding,
        };
        let pass = decoding.pass.as_mut().ok_or(PipelineError::Spent)?;
        let Some(decoded) = pass.advance()? else {
            return Ok(FinishStep::Continue);
        };
        let made = img2img::to_image(&decoded, decoding.size)?.ok_or_else(|| pass.not_finite())?;
        Ok(FinishStep::Done(match &decoding.kept {
            Some((inpainting, init)) => inpainting.composite(init, made),
            None => made,
        }))
    }

    /// Does all slices.
    ///
    /// # Errors
    /// As [`StableDiffusion::begin_finish`] and [`StableDiffusion::advance_finish`].
    pub fn finish(&self, state: DenoiseState) -> Result<RgbImage, PipelineError> {
        let mut finishing = self.begin_finish(state)?;
        loop {
            match self.advance_finish(&mut finishing)? {
                FinishStep::Continue => {}
                FinishStep::Done(image) => return Ok(image),
            }
        }
    }

    /// Latents `[4, h, w]` on their way into the VAE.
    pub(crate) fn begin_decode(&self, latents: &Latents) -> Result<VaeWork, PipelineError> {
        let [channels, h, w] = latents.shape();
        let latents = self.to_vae_range(latents.clone());
        let z = Tensor::from_vec(latents.into_values(), (1, channels, h, w), &Device::Cpu)?;
        self.begin_decode_of(&z)
    }
}
