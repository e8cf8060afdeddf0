//! A quick look at an image that is being made: a colour for each latent pixel, which costs next to nothing.
//!
//! A colour is a linear function of the four numbers of a latent pixel. The published factors are those of the `step_callback`
//! of InvokeAI (Apache-2.0): for Stable Diffusion 1 and 2 by torridgristle after keturn and erucipe
//! (<https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204/7>), for SDXL by StAlKeR7779.
//! Invariant: nothing here changes a state, so an image is the same whether somebody looks at it or not.

use std::ops::Range;

use pentimento_schedulers::Latents;
use pentimento_types::{RgbImage, Size};

use crate::img2img::to_level;
use crate::{DenoiseState, StableDiffusion};

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
/// The longest side of a preview, in pixels; latents of larger images are averaged.
const PREVIEW_SIDE: u32 = 128;

impl StableDiffusion {
    /// About what the image of this state looks like now, with a pixel for each latent pixel and no side above
    /// 128. None where no factors are known for its latents, or when they are not finite.
    #[must_use]
    pub fn preview(&self, state: &DenoiseState) -> Option<RgbImage> {
        let factors = if self.second.is_some() { &SDXL } else { &SD1 };
        // What the UNet would be given: schedulers that add noise to an image that keeps its strength scale it down to
        // the range of an image, and only that shows more than noise.
        match state.scheduler.next_evaluation() {
            Some(next) => linear(&next.sample, factors),
            None => linear(state.latents(), factors),
        }
    }
}

/// The mean colour of each square of latent pixels.
fn linear(latents: &Latents, factors: &Factors) -> Option<RgbImage> {
    let [channels, h, w] = latents.shape();
    if channels != factors.len() || !latents.is_finite() {
        return None;
    }
    let side = h.max(w).div_ceil(PREVIEW_SIDE as usize).max(1);
    let (lines, columns) = (h.div_ceil(side), w.div_ceil(side));
    let mut pixels = Vec::with_capacity(lines * columns * 3);
    for line in 0..lines {
        for column in 0..columns {
            let ys = line * side..((line + 1) * side).min(h);
            let xs = column * side..((column + 1) * side).min(w);
            let means = means(latents, ys, xs);
            for part in 0..3 {
                let sum: f32 = means
                    .iter()
                    .zip(factors)
                    .map(|(mean, factor)| mean * factor[part])
                    .sum();
                pixels.push(to_level(sum));
            }
        }
    }
    let size = Size {
        width: u32::try_from(columns).ok()?,
        height: u32::try_from(lines).ok()?,
    };
    RgbImage::new(size, pixels)
}

/// Of each channel over a part of the latents.
fn means(latents: &Latents, ys: Range<usize>, xs: Range<usize>) -> [f32; 4] {
    let [_, h, w] = latents.shape();
    let values = latents.values();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred latent pixels")]
    let count = (ys.len() * xs.len()) as f32;
    std::array::from_fn(|channel| {
        let lines = ys.clone().map(|y| &values[channel * h * w + y * w..][xs.clone()]);
        lines.flatten().sum::<f32>() / count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn large_latents_are_averaged() {
        let image = linear(&Latents::zeros([4, 130, 258]), &SDXL).unwrap();
        assert_eq!(
            image.size(),
            Size {
                width: 86,
                height: 44
            }
        );
        assert!(image.pixels().iter().all(|level| *level == 128));
        // A line of 129 makes squares of two, the last of which is cut off.
        let mut values = vec![0.0; 4 * 129];
        values[258..261].copy_from_slice(&[2.0, 0.0, 1.0]);
        let image = linear(&Latents::new([4, 1, 129], values).unwrap(), &SD1).unwrap();
        assert_eq!(image.size(), Size { width: 65, height: 1 });
        assert_eq!(image.pixels()[..3], [87, 160, 154]);
    }
}
