//! How much each pixel of an image may change: from black, which stays, to white, which changes with the strength.
//!
//! Differential Diffusion (Levin and Fried 2023, arXiv 2306.00950), in the authors' version for Stable Diffusion 2; the
//! published map is the inverse of ours. `docs/adr/0012-differential-diffusion-of-its-authors.md` says why that version, and
//! `tests/golden/generate/differential.py` what it does.

use pentimento_types::{RgbImage, Size};

use crate::mask::{MaskPixels, grey_levels};

/// A level for each pixel of the image that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeMap {
    size: Size,
    /// 0 stays, 255 changes most.
    levels: Vec<u8>,
}

/// How much of each latent pixel is kept, `h * w` values line by line, of [`KeptShares::WHOLE`]: what the published map has at
/// the size of the latents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptShares(Vec<u16>);

impl ChangeMap {
    /// Reads a map for an image of `size`. One of another size is stretched to it as a mask is.
    pub(crate) fn new(map: &RgbImage, size: Size) -> Self {
        Self {
            size,
            levels: grey_levels(map, size).collect(),
        }
    }

    /// The pixels that may change at all.
    pub(crate) fn changing(&self) -> MaskPixels {
        MaskPixels::of(self.size, self.levels.iter().map(|level| *level > 0).collect())
    }

    /// The four pixels around the middle of each block of `step` x `step`, of the image padded to multiples of `step` by
    /// repeating its last column and line. PyTorch's bilinear reduction without antialiasing takes their mean.
    pub(crate) fn kept(&self, step: u32) -> KeptShares {
        let padded = self.size.padded_to(step);
        let [width, height] = [self.size.width, self.size.height].map(|side| side as usize);
        let (columns, lines) = (padded.width / step, padded.height / step);
        let step = step as usize;
        let around = |block: usize, side: usize| {
            [(step - 1) / 2, step / 2].map(|at| (block * step + at).min(side - 1))
        };
        let share = |x: usize, y: usize| -> u16 {
            let lines = around(y, height).into_iter();
            let pixels = lines.flat_map(|y| around(x, width).map(|x| self.levels[y * width + x]));
            pixels.map(|level| u16::from(255 - level)).sum()
        };
        let shares = (0..lines as usize).flat_map(|y| (0..columns as usize).map(move |x| (x, y)));
        KeptShares(shares.map(|(x, y)| share(x, y)).collect())
    }
}

impl KeptShares {
    /// Four pixels that stay.
    const WHOLE: u64 = 4 * 255;

    /// 1 where a latent pixel is free after `done` of `all` evaluations, 0 where it is still the image's: as long as its share is
    /// above `done / all`. Exact, where PyTorch's rounded mean may decide a tie either way.
    pub(crate) fn free_after(&self, done: u32, all: u32) -> Vec<f32> {
        let (done, all) = (u64::from(done) * Self::WHOLE, u64::from(all));
        let is_kept = |share: &u16| u64::from(*share) * all > done;
        let shares = self.0.iter();
        shares
            .map(|share| if is_kept(share) { 0.0 } else { 1.0 })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map from lines of grey levels.
    fn map(lines: &[&[u8]]) -> ChangeMap {
        ChangeMap {
            size: Size {
                width: u32::try_from(lines[0].len()).unwrap(),
                height: u32::try_from(lines.len()).unwrap(),
            },
            levels: lines.concat(),
        }
    }

    #[test]
    fn a_latent_takes_the_four_pixels_in_the_middle_of_its_block() {
        let map = map(&[
            &[9, 9, 9, 9, 255],
            &[9, 1, 2, 9, 255],
            &[9, 3, 4, 9, 255],
            &[9, 9, 9, 9, 255],
        ]);
        // The second block is one column, repeated.
        assert_eq!(map.kept(4), KeptShares(vec![4 * 255 - 10, 0]));
    }

    #[test]
    fn what_may_change_is_whatever_is_not_black() {
        let map = map(&[&[0, 1, 128, 255]]);
        assert_eq!(map.changing().coverage(0), [0, 255, 255, 255]);
    }

    #[test]
    fn a_latent_is_let_go_when_its_share_of_the_evaluations_is_over() {
        let black_to_white = KeptShares(vec![1020, 1019, 765, 510, 255, 1, 0]);
        let kept = |done| {
            let free = black_to_white.free_after(done, 4);
            free.iter().filter(|free| **free == 0.0).count()
        };
        // At a tie it is let go: the published comparison is strict.
        assert_eq!([0, 1, 2, 3, 4].map(kept), [6, 4, 3, 2, 0]);
        assert_eq!(black_to_white.free_after(3, 4)[..3], [0.0, 0.0, 1.0]);
    }
}
