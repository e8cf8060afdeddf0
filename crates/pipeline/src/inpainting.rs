//! What one inpainted image carries from evaluation to evaluation, and how its kept part comes back.

use std::sync::Arc;

use pentimento_schedulers::{Latents, Scheduler};
use pentimento_types::RgbImage;

use crate::PipelineError;
use crate::change_map::KeptShares;

/// What one image carries because it is inpainted. One of `channels` and `blend` is there.
#[derive(Clone, Debug)]
pub(crate) struct Inpainting {
    /// What a UNet of 9 channels sees beside the latents: mask and hidden image, `[5, h, w]`.
    pub(crate) channels: Option<Latents>,
    /// What replaces the latents that are kept, for a UNet of 4 channels.
    pub(crate) blend: Option<Blend>,
    /// How much of the new image each pixel shows, 0 to 255; None when everything is repainted, or others put the rest back.
    pub(crate) coverage: Option<Arc<[u8]>>,
}

/// The kept part of an image at every noise level.
#[derive(Clone, Debug)]
pub(crate) struct Blend {
    pub(crate) kept: Kept,
    /// The encoded image, `[4, h, w]`.
    pub(crate) init_latents: Latents,
    /// The start noise, `[4, h, w]`.
    pub(crate) noise: Latents,
}

/// Which latents are kept, and how long.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// Those where the mask is 0 and not 1, after each evaluation, the last one included. `h * w` values, line by line.
    Always(Arc<[f32]>),
    /// Each for its share of the evaluations; after the last one nothing is put back.
    ForShares(Arc<KeptShares>),
}

impl Kept {
    /// 1 where latents are free after so many evaluations, 0 where the image's take their place; None when none are put back.
    fn free_after(&self, done: u32, all: u32) -> Option<Arc<[f32]>> {
        match self {
            Self::Always(mask) => Some(Arc::clone(mask)),
            Self::ForShares(_) if done >= all => None,
            Self::ForShares(shares) => Some(shares.free_after(done, all).into()),
        }
    }
}

impl Inpainting {
    /// Puts the noised image in the place of the latents that are kept, after evaluation `done` of `all`.
    pub(crate) fn restore(
        &self,
        scheduler: &mut Scheduler,
        (done, all): (u32, u32),
    ) -> Result<(), PipelineError> {
        let Some(blend) = &self.blend else {
            return Ok(());
        };
        let Some(mask) = blend.kept.free_after(done, all) else {
            return Ok(());
        };
        let noised_init = scheduler.noised_init(&blend.init_latents, &blend.noise)?;
        if let Some(mut latents) = noised_init {
            mix(&mask, &mut latents, scheduler.latents());
            scheduler.replace_latents(latents)?;
        }
        Ok(())
    }

    /// The new image inside the mask, the input's own pixels outside.
    pub(crate) fn composite(&self, init: &RgbImage, made: RgbImage) -> RgbImage {
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
        RgbImage::new(size, pixels).expect("the image has kept its number of pixels")
    }
}

/// `kept * (1 - mask) + free * mask` in every channel, in the place of `kept`; each operation is rounded.
fn mix(mask: &[f32], kept: &mut Latents, free: &Latents) {
    let planes = free.values().chunks_exact(mask.len());
    for (kept, free) in kept.values_mut().chunks_exact_mut(mask.len()).zip(planes) {
        for ((kept, free), mask) in kept.iter_mut().zip(free).zip(mask) {
            *kept = *kept * (1.0 - mask) + free * mask;
        }
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

    #[test]
    fn the_mask_is_the_same_in_every_channel() {
        let mut kept = Latents::new([2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let repainted = Latents::new([2, 1, 2], vec![-1.0, -2.0, -3.0, -4.0]).unwrap();
        mix(&[0.0, 1.0], &mut kept, &repainted);
        assert_eq!(kept.values(), [1.0, -2.0, 3.0, -4.0]);
    }
}
