//! A mask as grey levels, and what is done to it before it is used: turned round and blurred.

use pentimento_types::{RgbImage, Size};

/// One level for each pixel, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grey {
    pub(super) size: Size,
    pub(super) levels: Vec<u8>,
}

impl Grey {
    /// Pillow's `convert("L")`.
    pub(super) fn of(image: &RgbImage) -> Self {
        let (pixels, _) = image.pixels().as_chunks::<3>();
        Self {
            size: image.size(),
            levels: pixels.iter().map(|pixel| level(*pixel)).collect(),
        }
    }

    /// The same in three channels.
    pub(super) fn to_image(&self) -> RgbImage {
        let pixels = self.levels.iter().flat_map(|level| [*level; 3]).collect();
        RgbImage::new(self.size, pixels).expect("there is a level for each pixel")
    }

    pub(super) fn inverted(mut self) -> Self {
        for level in &mut self.levels {
            *level = 255 - *level;
        }
        self
    }

    /// Blurred by Gaussians of these standard deviations across and down, 0 being none.
    ///
    /// As `cv2.GaussianBlur` with A1111's kernels of `2 * int(2.5 * sigma + 0.5) + 1` samples and the picture mirrored about its
    /// outermost pixels. OpenCV computes it in fixed point; levels differ by at most 2
    /// (OpenCV 5.0, noise and a rectangle, standard deviations from 1 to 64).
    pub(super) fn blurred(mut self, [across, down]: [u32; 2]) -> Self {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        if across > 0 {
            let kernel = kernel(across);
            let reach = kernel.len() / 2;
            let places: Vec<usize> = (0..width + 2 * reach)
                .map(|at| mirrored(at, reach, width))
                .collect();
            let mut sums = vec![0_f32; width];
            for line in self.levels.chunks_exact_mut(width) {
                // A line of one level stays as it is; most lines of most masks are black.
                if line.iter().all(|level| *level == line[0]) {
                    continue;
                }
                let padded: Vec<f32> = places.iter().map(|at| f32::from(line[*at])).collect();
                sums.fill(0.0);
                for (at, weight) in kernel.iter().enumerate() {
                    for (sum, level) in sums.iter_mut().zip(&padded[at..]) {
                        *sum += weight * level;
                    }
                }
                store(&sums, line);
            }
        }
        if down > 0 {
            let kernel = kernel(down);
            let reach = kernel.len() / 2;
            let before = self.levels.clone();
            let of_line = |y: usize| &before[y * width..(y + 1) * width];
            let same = |one: usize, other: usize| one == other || of_line(one) == of_line(other);
            // How many lines up to each one are like the one before it.
            let mut like = vec![0_usize; height];
            for y in 1..height {
                like[y] = if same(y - 1, y) { like[y - 1] + 1 } else { 0 };
            }
            let mut sums = vec![0_f32; width];
            for (y, line) in self.levels.chunks_exact_mut(width).enumerate() {
                // Where all that is seen is one line again and again, it stays.
                let last = (y + reach).min(height - 1);
                if like[last] >= last - y.saturating_sub(reach) {
                    continue;
                }
                sums.fill(0.0);
                for (at, weight) in kernel.iter().enumerate() {
                    let other = of_line(mirrored(y + at, reach, height));
                    for (sum, level) in sums.iter_mut().zip(other) {
                        *sum += weight * f32::from(*level);
                    }
                }
                store(&sums, line);
            }
        }
        self
    }
}

/// ITU-R 601 in 16-bit fixed point.
fn level(rgb: [u8; 3]) -> u8 {
    let [r, g, b] = rgb.map(u32::from);
    u8::try_from((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).unwrap_or(u8::MAX)
}

/// `int(2.5 * sigma + 0.5)` samples to each side.
fn kernel(sigma: u32) -> Vec<f32> {
    let reach = (5 * sigma).div_ceil(2);
    let weight = |at: u32| {
        let distance = f64::from(at) - f64::from(reach);
        (-distance * distance / (2.0 * f64::from(sigma) * f64::from(sigma))).exp()
    };
    let weights: Vec<f64> = (0..=2 * reach).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a share of 1; the sums are of bytes"
    )]
    let shares = weights.iter().map(|weight| (weight / sum) as f32);
    shares.collect()
}

/// The place `at - reach` of a side, mirrored about the outermost pixels as often as needed.
fn mirrored(at: usize, reach: usize, length: usize) -> usize {
    let period = 2 * (length - 1);
    if period == 0 {
        return 0;
    }
    // Enough periods that nothing is negative.
    let at = (at + reach.div_ceil(period) * period - reach) % period;
    at.min(period - at)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a mean of bytes, rounded"
)]
fn store(sums: &[f32], levels: &mut [u8]) {
    for (level, sum) in levels.iter_mut().zip(sums) {
        *level = sum.round_ties_even().clamp(0.0, 255.0) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(levels: &[u8]) -> Grey {
        let width = u32::try_from(levels.len()).unwrap();
        Grey {
            size: Size { width, height: 1 },
            levels: levels.to_vec(),
        }
    }

    #[test]
    fn a_blur_is_a_gaussian_with_mirrored_edges() {
        // sigma 1: 7 samples, exp(-d²/2) / 2.50563…
        let dot = line(&[0, 0, 0, 0, 255, 0, 0, 0, 0]).blurred([1, 0]);
        assert_eq!(dot.levels, [0, 1, 14, 62, 102, 62, 14, 1, 0]);
        // cv2.BORDER_REFLECT_101: the outermost pixel is not doubled.
        let edge = line(&[255, 0, 0, 0, 0]).blurred([1, 0]);
        assert_eq!(edge.levels, [102, 62, 14, 1, 0]);
        let down = Grey {
            size: Size { width: 1, height: 5 },
            levels: vec![255, 0, 0, 0, 0],
        };
        assert_eq!(down.blurred([0, 1]).levels, edge.levels);
        assert_eq!(line(&[9, 200]).blurred([0, 0]), line(&[9, 200]));
    }

    #[test]
    fn a_blur_wider_than_the_picture_stays_inside_it() {
        for width in 1..6 {
            let even = line(&vec![77; width]).blurred([64, 64]);
            assert_eq!(even.levels, vec![77; width]);
        }
        assert_eq!(mirrored(0, 7, 3), 1, "-7 about 0 and 2 in turn");
        assert_eq!(
            (0..5).map(|at| mirrored(at, 2, 3)).collect::<Vec<_>>(),
            [2, 1, 0, 1, 2]
        );
    }
}
