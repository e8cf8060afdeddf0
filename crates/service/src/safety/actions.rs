//! What is done with an unsafe picture. Each result has the picture's size, and nothing in it can be recognised.
//!
//! Sizes are relative to the picture, so that a large one keeps no more than a small one.

use pentimento_types::{RgbImage, SafetyAction};

use super::notice;

/// What is left of the longer side: so many squares, or blurred spots.
const PARTS: usize = 12;

pub(super) fn apply(action: SafetyAction, picture: RgbImage) -> RgbImage {
    match action {
        SafetyAction::Keep => picture,
        SafetyAction::SensitiveContentText => notice::of(picture.size()),
        SafetyAction::Blur => blur(picture),
        SafetyAction::Pixelate => pixelate(picture),
        SafetyAction::Black => black(picture),
    }
}

fn black(picture: RgbImage) -> RgbImage {
    with_pixels(picture, |pixels, _, _| pixels.fill(0))
}

/// Squares of the longer side's twelfth, each in its mean colour.
fn pixelate(picture: RgbImage) -> RgbImage {
    with_pixels(picture, |pixels, width, height| {
        let side = part(width, height);
        for top in (0..height).step_by(side) {
            for left in (0..width).step_by(side) {
                let (rows, columns) = (top..height.min(top + side), left..width.min(left + side));
                let line = |y: usize| (y * width + columns.start) * 3..(y * width + columns.end) * 3;
                let mut sums = [0_u64; 3];
                for y in rows.clone() {
                    for pixel in pixels[line(y)].chunks_exact(3) {
                        for (sum, value) in sums.iter_mut().zip(pixel) {
                            *sum += u64::from(*value);
                        }
                    }
                }
                let count = (rows.len() * columns.len()) as u64;
                let mean = sums.map(|sum| ((sum + count / 2) / count) as u8);
                for y in rows {
                    for pixel in pixels[line(y)].chunks_exact_mut(3) {
                        pixel.copy_from_slice(&mean);
                    }
                }
            }
        }
    })
}

/// Three means over a sixth of the longer side, one after the other: nearly a Gaussian of its twelfth.
fn blur(picture: RgbImage) -> RgbImage {
    with_pixels(picture, |pixels, width, height| {
        let radius = part(width, height);
        for _ in 0..3 {
            for y in 0..height {
                mean_along(pixels, (y * width * 3, 3), width, radius);
            }
            for x in 0..width {
                mean_along(pixels, (x * 3, width * 3), height, radius);
            }
        }
    })
}

/// A line of `count` pixels that begins at `start` and goes on every `stride` numbers: each becomes the mean of those within
/// `radius`, where the line's ends go on for ever.
fn mean_along(pixels: &mut [u8], (start, stride): (usize, usize), count: usize, radius: usize) {
    for channel in 0..3 {
        let line: Vec<u8> = (0..count)
            .map(|at| pixels[start + at * stride + channel])
            .collect();
        let value = |at: usize| u64::from(line[at.saturating_sub(radius).min(count - 1)]);
        // Numbers are counted from `radius` before the line's start.
        let mut sum: u64 = (0..2 * radius + 1).map(value).sum();
        let size = 2 * radius as u64 + 1;
        for at in 0..count {
            pixels[start + at * stride + channel] = ((sum + size / 2) / size) as u8;
            sum = sum + value(at + 2 * radius + 1) - value(at);
        }
    }
}

fn part(width: usize, height: usize) -> usize {
    width.max(height).div_ceil(PARTS)
}

fn with_pixels(picture: RgbImage, change: impl FnOnce(&mut [u8], usize, usize)) -> RgbImage {
    let size = picture.size();
    let mut pixels = picture.into_pixels();
    change(&mut pixels, size.width as usize, size.height as usize);
    RgbImage::new(size, pixels).expect("as many bytes as before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pentimento_types::Size;
    use std::collections::HashSet;

    const ACTIONS: [SafetyAction; 4] = [
        SafetyAction::SensitiveContentText,
        SafetyAction::Blur,
        SafetyAction::Pixelate,
        SafetyAction::Black,
    ];

    fn drawn(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixels = pixels.flat_map(|(x, y)| colour(x, y)).collect();
        RgbImage::new(Size { width, height }, pixels).expect("the bytes fit")
    }

    /// Stripes of the longer side's 24th in black and white, which a quarter of a person's head would be.
    fn stripes(width: u32, height: u32) -> RgbImage {
        let stripe = (width.max(height) / 24).max(1);
        drawn(width, height, |x, y| {
            [if (x / stripe + y / stripe) % 2 == 0 {
                255
            } else {
                0
            }; 3]
        })
    }

    #[test]
    fn every_action_keeps_the_size() {
        for (width, height) in [(1, 1), (1, 50), (64, 48), (13, 7), (300, 200)] {
            for action in ACTIONS {
                let result = apply(action, stripes(width, height));
                assert_eq!(result.size(), Size { width, height }, "{action:?}");
            }
        }
        let picture = stripes(20, 20);
        assert!(apply(SafetyAction::Keep, picture.clone()) == picture);
    }

    #[test]
    fn nothing_of_the_picture_is_in_black_or_in_the_notice() {
        for action in [SafetyAction::Black, SafetyAction::SensitiveContentText] {
            let one = apply(action, stripes(120, 80));
            let other = apply(action, drawn(120, 80, |x, y| [x as u8, y as u8, 7]));
            assert!(one == other, "{action:?}");
        }
    }

    #[test]
    fn details_are_gone_whatever_the_size() {
        for (width, height) in [(96, 96), (480, 360), (240, 480)] {
            let blurred = apply(SafetyAction::Blur, stripes(width, height));
            let (least, most) = (blurred.pixels().iter().min(), blurred.pixels().iter().max());
            let (least, most) = (*least.expect("pixels"), *most.expect("pixels"));
            // Of black and white; most is left at the edges, whose pixels count more often.
            assert!(most - least <= 40, "{width}x{height}: {least} to {most}");

            let squares = apply(SafetyAction::Pixelate, stripes(width, height));
            let side = width.max(height).div_ceil(12) as usize;
            for (at, pixel) in squares.pixels().chunks_exact(3).enumerate() {
                let (x, y) = (at % width as usize, at / width as usize);
                let first = (y / side * side * width as usize + x / side * side) * 3;
                assert_eq!(
                    pixel,
                    &squares.pixels()[first..first + 3],
                    "{width}x{height} at {x}, {y}"
                );
            }
        }
        let noise = drawn(200, 200, |x, y| {
            [(x * 7 + y * 13) as u8, (x * y) as u8, (x ^ y) as u8]
        });
        let squares = apply(SafetyAction::Pixelate, noise);
        let colours: HashSet<&[u8]> = squares.pixels().chunks_exact(3).collect();
        assert!(colours.len() <= PARTS * PARTS, "{}", colours.len());
    }

    #[test]
    fn colours_stay_where_they_were() {
        let halves = drawn(120, 60, |x, _| if x < 60 { [200, 20, 20] } else { [20, 20, 200] });
        for action in [SafetyAction::Blur, SafetyAction::Pixelate] {
            let result = apply(action, halves.clone());
            let pixel = |x: usize| &result.pixels()[(30 * 120 + x) * 3..(30 * 120 + x) * 3 + 3];
            assert!(
                pixel(0)[0] > 180 && pixel(0)[2] < 40,
                "{action:?}: {:?}",
                pixel(0)
            );
            assert!(
                pixel(119)[2] > 180 && pixel(119)[0] < 40,
                "{action:?}: {:?}",
                pixel(119)
            );
            // One colour everywhere stays that colour.
            let plain = drawn(50, 40, |_, _| [10, 130, 240]);
            assert!(apply(action, plain.clone()) == plain, "{action:?}");
        }
    }
}
