//! Inpainting: a part of the picture is repainted, and the rest of it comes back pixel for pixel.
//!
//! As diffusers' `StableDiffusionInpaintPipeline`, for both kinds of checkpoint. An ordinary UNet of 4 channels repaints
//! everything, and after each evaluation the latents outside the mask are replaced by the encoded picture at the new
//! noise level. A UNet of 9 channels sees the mask and the encoded picture with its masked part hidden.
//! The order in which noise is drawn is described in `tests/golden/generate/inpaint.py`.

use std::sync::Arc;

use candle_core::Tensor;
use pentimento_schedulers::{NoiseSource, Scheduler, Start};
use pentimento_types::{Recipe, RgbPicture};

use crate::mask::MaskPixels;
use crate::prepare::{Common, Started, noise_sources};
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion, img2img};

/// What one picture carries because it is inpainted. One of `channels` and `blend` is there.
#[derive(Clone, Debug)]
pub(crate) struct Inpainting {
    /// What a UNet of 9 channels sees beside the latents: mask and hidden picture, `(1, 5, h, w)`.
    channels: Option<Tensor>,
    /// What replaces the latents that are kept, for a UNet of 4 channels.
    blend: Option<Blend>,
    /// How much of the new picture each pixel shows, 0 to 255; None when everything is repainted.
    coverage: Option<Arc<[u8]>>,
}

/// The kept part of a picture at every noise level.
#[derive(Clone, Debug)]
struct Blend {
    /// `(1, 1, h, w)`: 1 is repainted, 0 is kept.
    mask: Tensor,
    /// The encoded picture, `(1, 4, h, w)`.
    clean: Tensor,
    /// The start noise, `(1, 4, h, w)`.
    drawn: Tensor,
}

/// What all pictures of an inpainting request share.
#[derive(Debug)]
struct Shared {
    common: Common,
    /// Strength 1: the start is noise alone, unlike image to image, where the picture still shines through.
    from_noise: bool,
    /// Moments of the picture, `(1, 8, h, w)`; None where nothing of it is in the start or kept as latents.
    moments: Option<Tensor>,
    /// Moments of the picture with its masked part hidden, `(1, 8, h, w)`; only for UNets that take it.
    hidden_moments: Option<Tensor>,
    /// `(1, 1, h, w)`
    mask: Tensor,
    coverage: Option<Arc<[u8]>>,
}

impl StableDiffusion {
    /// As [`StableDiffusion::prepare`], but only what `mask` paints white is made anew: white is repainted, black is kept,
    /// with the threshold at half grey, stretched to the size of the image. `Recipe::soft_edge` says how the edge fades.
    ///
    /// With nothing to repaint no evaluation runs, and the result is the input.
    ///
    /// # Errors
    /// As [`StableDiffusion::prepare`].
    pub fn prepare_inpaint(
        &self,
        request: &Recipe,
        init: &RgbPicture,
        mask: &RgbPicture,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        let pixels = MaskPixels::new(mask, init.size());
        let coverage = pixels.coverage(request.soft_edge);
        self.prepare_masked(request, init, &pixels, Some(coverage.into()))
    }

    /// The whole picture is repainted, by a UNet that wants to be told so.
    pub(crate) fn prepare_everything(
        &self,
        request: &Recipe,
        init: &RgbPicture,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        self.prepare_masked(request, init, &MaskPixels::everything(init.size()), None)
    }

    /// Whether the UNet has input channels for the mask and the masked picture.
    pub(crate) fn takes_mask(&self) -> bool {
        self.unet.config().in_channels > self.vae.config().latent_channels
    }

    fn prepare_masked(
        &self,
        request: &Recipe,
        init: &RgbPicture,
        pixels: &MaskPixels,
        coverage: Option<Arc<[u8]>>,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        if pixels.is_empty() || request.strength <= 0.0 {
            let still = Recipe {
                strength: 0.0,
                ..request.clone()
            };
            return self.prepare_plain(&still, init);
        }
        // With its own channels a UNet sees what is kept of the picture, so a start from noise needs no more of it.
        let from_noise = request.strength >= 1.0 && !self.plan(request)?.inverts_picture();
        let needs_picture = !(from_noise && self.takes_mask());
        let padded = init.size().padded_to(self.pixels_per_latent);
        let [h, w] = [padded.height, padded.width].map(|side| (side / self.pixels_per_latent) as usize);
        let shared = Shared {
            from_noise,
            common: self.common(request, init)?,
            moments: needs_picture.then(|| self.encode_picture(init)).transpose()?,
            hidden_moments: self
                .takes_mask()
                .then(|| self.encode_hidden(init, pixels))
                .transpose()?,
            mask: Tensor::from_vec(pixels.latents(self.pixels_per_latent), (1, 1, h, w), &self.device)?,
            coverage,
        };
        noise_sources(request)
            .map(|noise| self.start_masked(request, &shared, noise))
            .collect()
    }

    /// The moments of the picture whose masked part is middle grey, 0 in the VAE's range.
    fn encode_hidden(&self, init: &RgbPicture, pixels: &MaskPixels) -> Result<Tensor, PipelineError> {
        let x = img2img::to_tensor(init, self.pixels_per_latent, &self.device)?;
        let (_, _, height, width) = x.dims4()?;
        let kept = Tensor::from_vec(
            pixels.kept(self.pixels_per_latent),
            (1, 1, height, width),
            &self.device,
        )?;
        Ok(self
            .vae
            .encode_moments(&x.broadcast_mul(&kept)?.to_dtype(self.dtype)?)?)
    }

    /// Draws in diffusers' order: the picture's sample, the start noise, the hidden picture's sample, then the steps.
    fn start_masked(
        &self,
        request: &Recipe,
        shared: &Shared,
        mut noise: NoiseSource,
    ) -> Result<DenoiseState, PipelineError> {
        let plan = self.plan(request)?;
        let (_, _, h, w) = shared.mask.dims4()?;
        let shape = [1, self.vae.config().latent_channels, h, w];
        let clean = match &shared.moments {
            Some(moments) => Some(self.sample_clean(moments, &mut noise)?),
            None => None,
        };
        let drawn = noise.normal(&shape)?.to_device(&self.device)?;
        let channels = match &shared.hidden_moments {
            Some(moments) => {
                let hidden = self.sample_clean(moments, &mut noise)?;
                Some(Tensor::cat(&[&shared.mask, &hidden], 1)?)
            }
            None => {
                // diffusers samples the hidden picture for 4 channels, too, and then has no use for it.
                noise.normal(&shape)?;
                None
            }
        };
        let start = match &clean {
            Some(clean) if !shared.from_noise => Start::Picture { clean, drawn: &drawn },
            Some(_) | None => Start::Noise { drawn: &drawn },
        };
        let (kind, evaluations) = (plan.kind(), plan.evaluations());
        let started = Started {
            scheduler: plan.begin_from(start, noise)?,
            kind,
            evaluations,
        };
        let blend = match clean {
            Some(clean) if channels.is_none() => Some(Blend {
                mask: shared.mask.clone(),
                clean,
                drawn,
            }),
            Some(_) | None => None,
        };
        let inpainting = Inpainting {
            channels,
            blend,
            coverage: shared.coverage.clone(),
        };
        Ok(DenoiseState {
            inpainting: Some(inpainting),
            ..self.state(request, &shared.common, started)?
        })
    }
}

impl Inpainting {
    /// What the UNet takes for the scheduler's sample `(1, 4, h, w)`.
    pub(crate) fn input(&self, sample: Tensor) -> Result<Tensor, PipelineError> {
        match &self.channels {
            Some(channels) => Ok(Tensor::cat(&[&sample, channels], 1)?),
            None => Ok(sample),
        }
    }

    /// Puts what is known in the place of the latents that are kept. After each evaluation, the last one included.
    pub(crate) fn restore(&self, scheduler: &mut dyn Scheduler) -> Result<(), PipelineError> {
        let Some(Blend { mask, clean, drawn }) = &self.blend else {
            return Ok(());
        };
        let Some(known) = scheduler.known(clean, drawn)? else {
            return Ok(());
        };
        let known = known.broadcast_mul(&(1.0 - mask)?)?;
        let made = scheduler.latents().broadcast_mul(mask)?;
        Ok(scheduler.replace_latents((known + made)?)?)
    }

    /// The new picture inside the mask, the input's own pixels outside.
    pub(crate) fn composite(&self, init: &RgbPicture, made: RgbPicture) -> RgbPicture {
        let Some(coverage) = &self.coverage else {
            return made;
        };
        let size = made.size();
        let mut pixels = made.into_pixels();
        let kept = init.pixels().chunks_exact(3);
        for ((made, kept), share) in pixels.chunks_exact_mut(3).zip(kept).zip(coverage.iter()) {
            for (made, kept) in made.iter_mut().zip(kept) {
                *made = mixed(*kept, *made, *share);
            }
        }
        RgbPicture::new(size, pixels).expect("the picture has kept its number of pixels")
    }
}

/// `share` 255ths of the new level and the rest of the old one, rounded to the nearest.
fn mixed(kept: u8, made: u8, share: u8) -> u8 {
    let share = u32::from(share);
    let sum = u32::from(kept) * (255 - share) + u32::from(made) * share;
    u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_exact_at_both_ends() {
        for level in [0, 1, 127, 200, 255] {
            assert_eq!(mixed(level, 90, 0), level);
            assert_eq!(mixed(90, level, 255), level);
            assert_eq!(mixed(level, level, 128), level);
        }
        assert_eq!(mixed(0, 255, 128), 128);
        assert_eq!(mixed(100, 200, 64), 125);
    }
}
