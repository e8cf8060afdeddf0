//! The masked part of a picture filled with the colours around it: `fill` of A1111's `modules/masking.py`, with Pillow's arithmetic
//! (`BoxBlur.c`, `AlphaComposite.c` and `Convert.c` of Pillow 13).

use pentimento_types::{RgbImage, Size};

use super::grey::Grey;

/// Radii of the blurs, and how often each is laid over the one before.
const BLURS: [(f32, usize); 6] = [(256.0, 1), (64.0, 1), (16.0, 2), (4.0, 4), (2.0, 2), (0.0, 1)];
/// Box blurs that stand for one Gaussian.
const PASSES: usize = 3;
/// The fraction of a weight.
const BITS: u32 = 24;

/// The picture with its masked part filled; both have one size.
pub(super) fn filled(image: &RgbImage, mask: &Grey) -> RgbImage {
    let size = image.size();
    let (pixels, _) = image.pixels().as_chunks::<3>();
    // Premultiplied: what is masked is transparent.
    let kept: Vec<[u8; 4]> = pixels
        .iter()
        .zip(&mask.levels)
        .map(|([r, g, b], level)| {
            let alpha = 255 - level;
            [times(*r, alpha), times(*g, alpha), times(*b, alpha), alpha]
        })
        .collect();
    let mut canvas = vec![[0_u8; 4]; kept.len()];
    for (radius, repeats) in BLURS {
        let mut layer = blurred(kept.clone(), size, radius);
        for pixel in &mut layer {
            *pixel = unmultiplied(*pixel);
        }
        for _ in 0..repeats {
            for (under, over) in canvas.iter_mut().zip(&layer) {
                *under = composed(*under, *over);
            }
        }
    }
    let pixels = canvas.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
    RgbImage::new(size, pixels).expect("there is a pixel for each place")
}

/// A product of two shares of 255, rounded as Pillow's `MULDIV255`.
fn times(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    u8::try_from(((product >> 8) + product) >> 8).unwrap_or(u8::MAX)
}

/// `RGBa` to `RGBA`.
fn unmultiplied([r, g, b, alpha]: [u8; 4]) -> [u8; 4] {
    if alpha == 0 || alpha == 255 {
        return [r, g, b, alpha];
    }
    let divided = |level: u8| u8::try_from(255 * u32::from(level) / u32::from(alpha)).unwrap_or(u8::MAX);
    [divided(r), divided(g), divided(b), alpha]
}

/// `Image.alpha_composite`: 7 bits more than a byte hold the intermediate values.
fn composed(under: [u8; 4], over: [u8; 4]) -> [u8; 4] {
    const MORE: u32 = 7;
    let alpha = u32::from(over[3]);
    if alpha == 0 {
        return under;
    }
    let behind = u32::from(under[3]) * (255 - alpha);
    let whole = alpha * 255 + behind;
    let share = alpha * 255 * 255 * (1 << MORE) / whole;
    let rest = 255 * (1 << MORE) - share;
    let divided = |value: u32| ((value >> 8) + value) >> 8;
    let mixed = |over: u8, under: u8| {
        let sum = u32::from(over) * share + u32::from(under) * rest + (0x80 << MORE);
        u8::try_from(divided(sum) >> MORE).unwrap_or(u8::MAX)
    };
    [
        mixed(over[0], under[0]),
        mixed(over[1], under[1]),
        mixed(over[2], under[2]),
        u8::try_from(divided(whole + 0x80)).unwrap_or(u8::MAX),
    ]
}

/// `ImageFilter.GaussianBlur`.
fn blurred(mut pixels: Vec<[u8; 4]>, size: Size, radius: f32) -> Vec<[u8; 4]> {
    let radius = box_radius(radius);
    if radius <= 0.0 {
        return pixels;
    }
    let (width, height) = (size.width as usize, size.height as usize);
    let blur = BoxBlur::new(radius);
    for line in pixels.chunks_exact_mut(width) {
        for _ in 0..PASSES {
            let before = line.to_vec();
            blur.line(&before, line);
        }
    }
    let mut column = vec![[0_u8; 4]; height];
    for x in 0..width {
        for (y, pixel) in column.iter_mut().enumerate() {
            *pixel = pixels[y * width + x];
        }
        for _ in 0..PASSES {
            let before = column.clone();
            blur.line(&before, &mut column);
        }
        for (y, pixel) in column.iter().enumerate() {
            pixels[y * width + x] = *pixel;
        }
    }
    pixels
}

/// Gwosdek et al. 2011, "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", equations 7, 11 and 14;
/// Pillow computes it in these types.
fn box_radius(radius: f32) -> f32 {
    let passes = PASSES as f32;
    let sigma2 = radius * radius / passes;
    let length = (12.0 * f64::from(sigma2) + 1.0).sqrt() as f32;
    let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
    let mut rest = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * sigma2);
    rest /= 6.0 * (sigma2 - (whole + 1.0) * (whole + 1.0));
    whole + rest
}

/// One pass: a box of whole samples, and a fraction of the next one on each side.
struct BoxBlur {
    reach: usize,
    weight: u32,
    far_weight: u32,
}

impl BoxBlur {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a radius of a few hundred"
    )]
    fn new(radius: f32) -> Self {
        let reach = radius as usize;
        let weight = ((1_u32 << BITS) as f32 / (radius * 2.0 + 1.0)) as u32;
        let far = (1_u32 << BITS).saturating_sub((reach as u32 * 2 + 1) * weight) / 2;
        Self {
            reach,
            weight,
            far_weight: far,
        }
    }

    /// Beyond its ends a line goes on with its outermost pixels.
    fn line(&self, before: &[[u8; 4]], after: &mut [[u8; 4]]) {
        let last = before.len() - 1;
        let at =
            |place: usize, offset: usize| before[(place + offset).saturating_sub(self.reach + 1).min(last)];
        for channel in 0..4 {
            let level = |place: usize, offset: usize| u32::from(at(place, offset)[channel]);
            // Around the place before the first.
            let mut sum: u32 = u32::from(before[0][channel]) * (self.reach as u32 + 1);
            sum += (0..self.reach)
                .map(|place| u32::from(before[place.min(last)][channel]))
                .sum::<u32>();
            for (place, made) in after.iter_mut().enumerate() {
                let (left, right) = (level(place, 0), level(place, 2 * self.reach + 1));
                sum = sum + right - left;
                let far = left + level(place, 2 * self.reach + 2);
                let all = sum * self.weight + far * self.far_weight + (1 << (BITS - 1));
                made[channel] = u8::try_from(all >> BITS).unwrap_or(u8::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 24,
        height: 16,
    };

    fn picture() -> (RgbImage, Grey) {
        let pixel = |at: u32| {
            let (x, y) = (at % SIZE.width, at / SIZE.width);
            [x * 10, y * 15, (x + y) * 6].map(|level| u8::try_from(level).unwrap())
        };
        let level = |at: u32| {
            let (x, y) = (at % SIZE.width, at / SIZE.width);
            // A soft disc.
            let squared = (x.abs_diff(12)).pow(2) + (y.abs_diff(8)).pow(2);
            u8::try_from(255_u32.saturating_sub(squared * 6)).unwrap()
        };
        let all = 0..SIZE.width * SIZE.height;
        let image = RgbImage::new(SIZE, all.clone().flat_map(pixel).collect()).unwrap();
        let mask = Grey {
            size: SIZE,
            levels: all.map(level).collect(),
        };
        (image, mask)
    }

    /// Computed with A1111's `masking.fill` on Pillow 13: lines 4 and 8 of the result, and a sum of all of it.
    #[test]
    fn the_filling_is_the_web_uis() {
        let (image, mask) = picture();
        let made = filled(&image, &mask);
        let sum: u64 = made
            .pixels()
            .iter()
            .enumerate()
            .map(|(at, level)| (at as u64 % 251 + 1) * u64::from(*level))
            .sum();
        let line = |y: usize| {
            made.pixels()[y * 72..y * 72 + 72]
                .iter()
                .step_by(9)
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (line(4), line(8), sum),
            (
                vec![0, 30, 60, 88, 120, 151, 180, 210],
                vec![0, 30, 59, 80, 121, 158, 180, 210],
                15999513
            )
        );
    }

    #[test]
    fn kept_pixels_stay_and_a_whole_mask_leaves_nothing() {
        let (image, mut mask) = picture();
        mask.levels.fill(0);
        assert_eq!(filled(&image, &mask), image);
        mask.levels.fill(255);
        assert!(filled(&image, &mask).pixels().iter().all(|level| *level == 0));
    }
}
