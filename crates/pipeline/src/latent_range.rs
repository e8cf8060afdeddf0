//! Between the range in which the VAE has latents and the one in which the UNet has them.

use pentimento_models::LatentNormalisation;
use pentimento_schedulers::Latents;

use crate::StableDiffusion;

impl StableDiffusion {
    /// Latents of the VAE as the UNet knows them.
    pub(crate) fn to_unet_range(&self, mut latents: Latents) -> Latents {
        let config = self.vae.config();
        #[expect(clippy::cast_possible_truncation, reason = "latents are f32")]
        let factor = config.scaling_factor as f32;
        // `StableDiffusionXLImg2ImgPipeline`, operation by operation. Its inpainting pipeline forgets the mean and the deviation
        // on the way in and not on the way out; here both ways are one rule.
        if let Some(normalisation) = &config.normalisation {
            each(&mut latents, normalisation, |x, mean, std| {
                (x - mean) * factor / std
            });
            return latents;
        }
        if config.shift_factor != 0.0 {
            shift(&mut latents, -config.shift_factor);
        }
        latents.scaled(config.scaling_factor)
    }

    /// Latents of the UNet as the VAE knows them.
    pub(crate) fn to_vae_range(&self, mut latents: Latents) -> Latents {
        let config = self.vae.config();
        #[expect(clippy::cast_possible_truncation, reason = "latents are f32")]
        let factor = config.scaling_factor as f32;
        if let Some(normalisation) = &config.normalisation {
            each(&mut latents, normalisation, |x, mean, std| {
                x * std / factor + mean
            });
            return latents;
        }
        let mut latents = latents.scaled(1.0 / config.scaling_factor);
        if config.shift_factor != 0.0 {
            shift(&mut latents, config.shift_factor);
        }
        latents
    }
}

/// Adds a number to every value.
#[expect(clippy::cast_possible_truncation, reason = "latents are f32")]
fn shift(latents: &mut Latents, by: f64) {
    for value in latents.values_mut() {
        *value += by as f32;
    }
}

/// Changes every value, given its channel's mean and deviation.
fn each(latents: &mut Latents, normalisation: &LatentNormalisation, change: impl Fn(f32, f32, f32) -> f32) {
    let [_, h, w] = latents.shape();
    let channels = normalisation.mean.iter().zip(&normalisation.std);
    for (plane, (mean, std)) in latents.values_mut().chunks_exact_mut(h * w).zip(channels) {
        for value in plane {
            *value = change(*value, *mean, *std);
        }
    }
}
