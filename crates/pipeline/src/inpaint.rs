//! The first act of inpainting: a part of the image is repainted, and the rest of it comes back pixel for pixel.
//!
//! As diffusers' `StableDiffusionInpaintPipeline`, for both kinds of checkpoint. An ordinary UNet of 4 channels repaints
//! everything, and after each evaluation the latents outside the mask are replaced by the encoded image at the new
//! noise level. A UNet of 9 channels sees the mask and the encoded image with its masked part hidden.
//! The order in which noise is drawn is described in `tests/golden/generate/inpaint.py`.

use std::sync::Arc;

use pentimento_schedulers::{Latents, NoiseSource, Start};
use pentimento_types::{Recipe, RgbPicture};

use crate::img2img::to_planes;
use crate::inpainting::{Blend, Inpainting};
use crate::mask::MaskPixels;
use crate::posterior::DiagonalGaussian;
use crate::prepare::{Common, Started, noise_sources};
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion};

/// What all images of an inpainting request share.
#[derive(Debug)]
struct SharedInputs {
    common: Common,
    /// Strength 1: the start is noise alone, unlike image to image, where the image still shines through.
    from_noise: bool,
    /// The encoded image; None where nothing of it is in the start or kept as latents.
    init: Option<DiagonalGaussian>,
    /// The encoded image with its masked part hidden; only for UNets that take it.
    masked_image: Option<DiagonalGaussian>,
    /// Channels, height and width of the latents.
    latent_shape: [usize; 3],
    /// h times w values, line by line: 1 is repainted, 0 is kept.
    mask: Arc<[f32]>,
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

    /// The whole image is repainted, by a UNet that wants to be told so.
    pub(crate) fn prepare_everything(
        &self,
        request: &Recipe,
        init: &RgbPicture,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        self.prepare_masked(request, init, &MaskPixels::everything(init.size()), None)
    }

    /// Whether the UNet has input channels for the mask and the masked image.
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
        // With its own channels a UNet sees what is kept of the image, so a start from noise needs no more of it.
        let from_noise = request.strength >= 1.0 && !self.plan(request)?.inverts_image();
        let needs_init = !(from_noise && self.takes_mask());
        let padded = init.size().padded_to(self.pixels_per_latent);
        let [h, w] = [padded.height, padded.width].map(|side| (side / self.pixels_per_latent) as usize);
        let shared = SharedInputs {
            from_noise,
            common: self.common(request, init)?,
            init: needs_init.then(|| self.encode(init)).transpose()?,
            masked_image: self
                .takes_mask()
                .then(|| self.encode_masked(init, pixels))
                .transpose()?,
            latent_shape: [self.vae.config().latent_channels, h, w],
            mask: pixels.latents(self.pixels_per_latent).into(),
            coverage,
        };
        noise_sources(request)
            .map(|noise_source| self.start_masked(request, &shared, noise_source))
            .collect()
    }

    /// The image whose masked part is middle grey, 0 in the VAE's range.
    fn encode_masked(
        &self,
        init: &RgbPicture,
        pixels: &MaskPixels,
    ) -> Result<DiagonalGaussian, PipelineError> {
        let mut planes = to_planes(init, self.pixels_per_latent);
        let kept = pixels.kept(self.pixels_per_latent);
        for plane in planes.values.chunks_exact_mut(kept.len()) {
            for (value, kept) in plane.iter_mut().zip(&kept) {
                *value *= kept;
            }
        }
        DiagonalGaussian::from_moments(&self.encode_planes(planes)?)
    }

    /// Draws in diffusers' order: the image's sample, the start noise, the masked image's sample, then the steps.
    fn start_masked(
        &self,
        request: &Recipe,
        shared: &SharedInputs,
        mut noise_source: NoiseSource,
    ) -> Result<DenoiseState, PipelineError> {
        let plan = self.plan(request)?;
        let init_latents = shared
            .init
            .as_ref()
            .map(|init| self.sample_latents(init, &mut noise_source));
        let noise = noise_source.normal(shared.latent_shape);
        let channels = match &shared.masked_image {
            Some(masked_image) => {
                let masked_latents = self.sample_latents(masked_image, &mut noise_source);
                Some(with_mask(&shared.mask, &masked_latents))
            }
            None => {
                // diffusers samples the masked image for 4 channels, too, and then has no use for it.
                noise_source.normal(shared.latent_shape);
                None
            }
        };
        let start = match &init_latents {
            Some(init_latents) if !shared.from_noise => Start::Image {
                init_latents,
                noise: &noise,
            },
            Some(_) | None => Start::Noise { noise: &noise },
        };
        let (kind, evaluations) = (plan.kind(), plan.evaluations());
        let started = Started {
            scheduler: plan.begin_from(start, noise_source)?,
            kind,
            evaluations,
        };
        let blend = match init_latents {
            Some(init_latents) if channels.is_none() => Some(Blend {
                mask: Arc::clone(&shared.mask),
                init_latents,
                noise,
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

/// The mask as a channel before those of the masked image.
fn with_mask(mask: &[f32], masked_latents: &Latents) -> Latents {
    let [channels, h, w] = masked_latents.shape();
    let values = [mask, masked_latents.values()].concat();
    Latents::new([channels + 1, h, w], values).expect("the mask has as many values as a channel")
}
