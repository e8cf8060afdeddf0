//! A quick look at latents on their way: decoded by a tiny autoencoder where the model has one, else a colour for each latent
//! pixel.
//!
//! A colour is a linear function of the four numbers of a latent pixel. The published factors are those of the `step_callback`
//! of InvokeAI (Apache-2.0): for Stable Diffusion 1 and 2 by torridgristle after keturn and erucipe
//! (<https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204/7>), for SDXL by StAlKeR7779.

use pentimento_schedulers::Latents;
use pentimento_types::{RgbImage, Size};

use crate::img2img::{to_image, to_level};
use crate::{PipelineError, StableDiffusion};

/// Red, green and blue, in -1..1, of each channel.
type Factors = [[f32; 3]; 4];

const SD1: Factors = [
    [0.3444, 0.1385, 0.0670],
    [0.1247, 0.4027, 0.1494],
    [-0.3192, 0.2513, 0.2103],
    [-0.1307, -0.1874, -0.7445],
];
const SDXL: Factors = [
    [0.3816, 0.4930, 0.5320],
    [-0.3753, 0.1631, 0.1739],
    [0.1770, 0.3588, -0.2048],
    [-0.4350, -0.2644, -0.4289],
];
/// What latents of SDXL are scaled by, which tells them from those of 1 and 2.
const SDXL_FACTOR: f64 = 0.13025;

impl StableDiffusion {
    /// The image that these latents, `[C, h, w]` as the UNet knows them, would be, about. None where no factors are known for
    /// them, or when they are not finite.
    ///
    /// # Errors
    /// When the tiny autoencoder fails.
    pub fn preview(&self, latents: &Latents) -> Result<Option<RgbImage>, PipelineError> {
        let vae = self.vae.config();
        if !vae.is_exact() {
            let is_sdxl = (vae.scaling_factor - SDXL_FACTOR).abs() < 1e-6;
            return Ok(linear(latents, if is_sdxl { &SDXL } else { &SD1 }));
        }
        let Some(size) = size_of(latents, self.pixels_per_latent) else {
            return Ok(None);
        };
        let mut pass = self.begin_decode(latents)?;
        loop {
            if let Some(decoded) = self.vae.advance(&mut pass)? {
                return Ok(to_image(&decoded, size)?);
            }
        }
    }
}

/// A pixel for each latent pixel.
fn linear(latents: &Latents, factors: &Factors) -> Option<RgbImage> {
    let [channels, h, w] = latents.shape();
    if channels != factors.len() || !latents.is_finite() {
        return None;
    }
    let values = latents.values();
    let colour = |at: usize, part: usize| {
        let parts = factors.iter().enumerate();
        let sum: f32 = parts.map(|(channel, factor)| values[channel * h * w + at] * factor[part]).sum();
        to_level(sum)
    };
    let pixels = (0..h * w).flat_map(|at| (0..3).map(move |part| colour(at, part)));
    RgbImage::new(size_of(latents, 1)?, pixels.collect())
}

fn size_of(latents: &Latents, pixels: u32) -> Option<Size> {
    let [_, h, w] = latents.shape();
    let side = |side: usize| u32::try_from(side).ok()?.checked_mul(pixels);
    Some(Size {
        width: side(w)?,
        height: side(h)?,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::seeded;

    #[test]
    fn each_latent_pixel_has_a_colour() {
        // Two pixels: nothing, and one unit of the third channel.
        let latents = Latents::new([4, 1, 2], vec![0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
        let image = linear(&latents, &SD1).unwrap();
        assert_eq!(image.size(), Size { width: 2, height: 1 });
        // (-0.3192, 0.2513, 0.2103) between -1 and 1.
        assert_eq!(image.pixels(), [128, 128, 128, 87, 160, 154]);
        let wide = Latents::zeros([16, 1, 2]);
        assert!(linear(&wide, &SD1).is_none());
        let broken = Latents::new([4, 1, 1], vec![f32::NAN; 4]).unwrap();
        assert!(linear(&broken, &SD1).is_none());
    }

    #[test]
    fn a_model_shows_its_latents_small() {
        let model = seeded::stable_diffusion(seeded::Shape::Tiny, 1, &Device::Cpu).unwrap();
        let image = model.preview(&Latents::zeros([4, 5, 6])).unwrap().unwrap();
        assert_eq!(image.size(), Size { width: 6, height: 5 });
        assert!(image.pixels().iter().all(|level| *level == 128));
    }
}
