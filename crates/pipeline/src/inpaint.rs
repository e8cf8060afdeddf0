//! The first act of inpainting: a part of the image is repainted, and the rest of it comes back pixel for pixel.
//!
//! As diffusers' `StableDiffusionInpaintPipeline`, for both kinds of checkpoint. An ordinary UNet of 4 channels repaints
//! everything, and after each evaluation the latents outside the mask are replaced by the encoded image at the new
//! noise level. A UNet of 9 channels sees the mask and the encoded image with its masked part hidden.
//! The order in which noise is drawn is described in `tests/golden/generate/inpaint.py`.
//!
//! In differential diffusion (`change_map.rs`) each latent pixel is kept for a share of the evaluations, and the start is that of
//! image to image.

use std::sync::Arc;

use pentimento_schedulers::{Latents, NoiseSource, Start};
use pentimento_types::{self as types, Inputs, Recipe, RgbImage, Size};

use crate::change_map::{ChangeMap, KeptShares};
use crate::img2img::{Planes, to_planes};
use crate::inpainting::{Blend, Inpainting, Kept};
use crate::mask::MaskPixels;
use crate::posterior::EncodedImage;
use crate::prepare::{Common, Started, noise_sources};
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion};

/// What is to be repainted, and what of the image is needed for that.
#[derive(Debug)]
pub(crate) struct Repainting {
    pub(crate) pixels: MaskPixels,
    coverage: Option<Arc<[u8]>>,
    /// How long each latent pixel is kept, by a mask that says how much each may change.
    shares: Option<Arc<KeptShares>>,
    /// Strength 1: the start is noise alone, unlike image to image, where the image still shines through.
    from_noise: bool,
    /// Whether anything of the image is in the start or kept as latents.
    pub(crate) needs_init: bool,
    /// Whether the UNet takes the image with its masked part hidden.
    pub(crate) needs_masked: bool,
}

/// What all images of an inpainting request share.
#[derive(Debug)]
struct SharedInputs {
    common: Common,
    /// Strength 1: the start is noise alone, unlike image to image, where the image still shines through.
    from_noise: bool,
    /// The encoded image; None where nothing of it is in the start or kept as latents.
    init: Option<EncodedImage>,
    /// The encoded image with its masked part hidden; only for UNets that take it.
    masked_image: Option<EncodedImage>,
    /// Channels, height and width of the latents.
    latent_shape: [usize; 3],
    /// h times w values, line by line: 1 is repainted, 0 is kept.
    mask: Arc<[f32]>,
    coverage: Option<Arc<[u8]>>,
    /// How long each latent pixel is kept, in differential diffusion.
    shares: Option<Arc<KeptShares>>,
}

impl StableDiffusion {
    /// Whether the UNet has input channels for the mask and the masked image.
    pub(crate) fn takes_mask(&self) -> bool {
        self.unet.config().in_channels > self.vae.config().latent_channels
    }

    /// What a mask means for this UNet, which may want to be told that everything is repainted. With nothing to repaint
    /// the request becomes one of strength 0.
    pub(crate) fn repainting(
        &self,
        request: Arc<Recipe>,
        images: &Inputs<RgbImage>,
    ) -> Result<(Arc<Recipe>, Option<Repainting>), PipelineError> {
        let (pixels, shares) = match images.start() {
            types::Start::Image {
                init,
                mask: Some(map),
            } if request.differential_diffusion => {
                let map = ChangeMap::new(map, init.size());
                let shares = map.kept(self.pixels_per_latent);
                (map.changing(), Some(Arc::new(shares)))
            }
            types::Start::Image {
                init,
                mask: Some(mask),
            } => (MaskPixels::new(mask, init.size()), None),
            _ if !self.takes_mask() => return Ok((request, None)),
            types::Start::Image { .. } | types::Start::Noise(_) => {
                (MaskPixels::everything(images.size()), None)
            }
        };
        // Who has framed the picture puts the kept pixels back, in the whole of it.
        let is_put_back = images.mask().is_some() && request.framing.is_none();
        let coverage = is_put_back.then(|| pixels.coverage(request.soft_edge).into());
        if pixels.is_empty() || request.strength <= 0.0 {
            let mut still = request;
            Arc::make_mut(&mut still).strength = 0.0;
            return Ok((still, None));
        }
        // With its own channels a UNet sees what is kept of the image, so a start from noise needs no more of it.
        let from_noise = request.strength >= 1.0 && shares.is_none() && !self.plan(&request)?.inverts_image();
        let repainting = Repainting {
            needs_init: !(from_noise && self.takes_mask()),
            needs_masked: self.takes_mask(),
            pixels,
            coverage,
            shares,
            from_noise,
        };
        Ok((request, Some(repainting)))
    }

    /// The states of an inpainting request, from the encoded image and the encoded image with its masked part hidden.
    pub(crate) fn masked_states(
        &self,
        request: &Recipe,
        common: Common,
        repainting: Repainting,
        (init, masked_image): (Option<EncodedImage>, Option<EncodedImage>),
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        let shared = SharedInputs {
            from_noise: repainting.from_noise,
            latent_shape: self.latent_shape(common.size),
            common,
            init,
            masked_image,
            mask: repainting.pixels.latents(self.pixels_per_latent).into(),
            coverage: repainting.coverage,
            shares: repainting.shares,
        };
        noise_sources(request)
            .map(|noise_source| self.start_masked(request, &shared, noise_source))
            .collect()
    }

    /// The image whose masked part is middle grey, 0 in the VAE's range. Without an image everything is masked.
    pub(crate) fn masked_planes(&self, init: Option<&RgbImage>, size: Size, pixels: &MaskPixels) -> Planes {
        let Some(init) = init else {
            return Planes::grey(size.padded_to(self.pixels_per_latent));
        };
        let mut planes = to_planes(init, self.pixels_per_latent);
        let kept = pixels.kept(self.pixels_per_latent);
        for plane in planes.values.chunks_exact_mut(kept.len()) {
            for (value, kept) in plane.iter_mut().zip(&kept) {
                *value *= kept;
            }
        }
        planes
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
                // diffusers samples the masked image for 4 channels, too, and then has no use for it. Differential diffusion
                // has no masked image.
                if shared.shares.is_none() && !self.vae.config().is_exact() {
                    noise_source.normal(shared.latent_shape);
                }
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
                kept: match &shared.shares {
                    Some(shares) => Kept::ForShares(Arc::clone(shares)),
                    None => Kept::Always(Arc::clone(&shared.mask)),
                },
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
