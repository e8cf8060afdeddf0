//! Images of another size, byte for byte as Pillow's `Image.resize(size, LANCZOS)`.
//!
//! The arithmetic is that of Pillow 13, `src/libImaging/Resample.c`: Lanczos' filter of radius 3, widened when shrinking;
//! weights in fixed point of 22 bits; two passes with rounding to 8 bits between them. The width changes first, unless the
//! image loses more than twice as many lines as columns. A direction whose length stays is left alone.

use std::borrow::Cow;
use std::f64::consts::PI;

use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use pentimento_types::{RgbImage, Size};

use crate::ServiceError;

/// Radius of the filter, in samples of the coarser image.
const RADIUS: f64 = 3.0;
/// The fraction of a weight: 8 bits are the sample's, and 2 are kept for sums beyond 0..255.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Half of the last place that is kept.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The image in another size. Takes CPU time: call it on a blocking thread.
///
/// # Errors
/// [`ServiceError::Internal`] only: every image can be resized.
pub fn resized(image: &RgbImage, size: Size) -> Result<RgbImage, ServiceError> {
    let pixels = resample(image.pixels(), image.size(), size);
    RgbImage::new(size, pixels)
        .ok_or_else(|| ServiceError::internal("an image does not have the bytes of its size"))
}

/// A PNG file of an image that no caller has sent in this form, made quickly.
pub(crate) fn to_file(image: &RgbImage) -> Result<Bytes, ServiceError> {
    let size = image.size();
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, PngFilter::Adaptive)
        .write_image(image.pixels(), size.width, size.height, ExtendedColorType::Rgb8)
        .map_err(ServiceError::internal)?;
    Ok(file.into())
}

/// RGB pixels from size `before` to size `after`.
fn resample(pixels: &[u8], before: Size, after: Size) -> Vec<u8> {
    // Signed, so that an image that gets wider and lower goes down first.
    let lost = |before: u32, after: u32| i64::from(before) - i64::from(after);
    let lost_lines = lost(before.height, after.height);
    if lost_lines > 0 && lost_lines > 2 * lost(before.width, after.width) {
        let lower = with_height(Cow::Borrowed(pixels), before, after.height);
        let size = Size {
            height: after.height,
            ..before
        };
        return with_width(lower, size, after.width).into_owned();
    }
    let other_width = with_width(Cow::Borrowed(pixels), before, after.width);
    let size = Size {
        width: after.width,
        ..before
    };
    with_height(other_width, size, after.height).into_owned()
}

fn with_width(pixels: Cow<'_, [u8]>, size: Size, width: u32) -> Cow<'_, [u8]> {
    if size.width == width {
        return pixels;
    }
    let windows = windows(size.width, width);
    let lines = pixels.chunks_exact(size.width as usize * 3);
    lines.flat_map(|line| across(line, &windows)).collect()
}

fn with_height(pixels: Cow<'_, [u8]>, size: Size, height: u32) -> Cow<'_, [u8]> {
    if size.height == height {
        return pixels;
    }
    let line_bytes = size.width as usize * 3;
    let mut sums = vec![0; line_bytes];
    let windows = windows(size.height, height).into_iter();
    windows
        .flat_map(|window| down(&pixels, &window, line_bytes, &mut sums))
        .collect()
}

/// The samples that one sample of the result is made of.
struct Window {
    /// The first of them.
    first: usize,
    /// How much each counts, times 2 to the power of `PRECISION_BITS`.
    weights: Vec<i32>,
}

/// One window for each of `after` samples, in a line of `before` samples.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places are cut as in C, after they are bounded by 0 and `before`; weights are at most a few units"
)]
fn windows(before: u32, after: u32) -> Vec<Window> {
    let scale = f64::from(before) / f64::from(after);
    // An enlarged image is still filtered at the distance of its own samples.
    let widened = scale.max(1.0);
    let support = RADIUS * widened;
    let window = |at: u32| {
        let centre = (f64::from(at) + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as u32;
        let end = (centre + support + 0.5).min(f64::from(before)) as u32;
        let weight = |sample: u32| lanczos((f64::from(sample) - centre + 0.5) * (1.0 / widened));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().fold(0.0, |sum, weight| sum + weight);
        let fixed = |weight: f64| {
            let share = if sum == 0.0 { weight } else { weight / sum };
            (share * f64::from(1 << PRECISION_BITS) + 0.5_f64.copysign(share)) as i32
        };
        Window {
            first: first as usize,
            weights: weights.into_iter().map(fixed).collect(),
        }
    };
    (0..after).map(window).collect()
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    if (-RADIUS..RADIUS).contains(&x) {
        sinc(x) * sinc(x / RADIUS)
    } else {
        0.0
    }
}

/// A line with one pixel for each window.
fn across(line: &[u8], windows: &[Window]) -> Vec<u8> {
    let (pixels, _) = line.as_chunks::<3>();
    let pixel = |window: &Window| {
        let mut sums = [HALF; 3];
        for (pixel, weight) in pixels[window.first..].iter().zip(&window.weights) {
            for (sum, sample) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(*sample) * weight;
            }
        }
        sums.map(rounded)
    };
    windows.iter().flat_map(pixel).collect()
}

/// The line that a window gives, out of lines of `line_bytes` bytes each.
fn down(pixels: &[u8], window: &Window, line_bytes: usize, sums: &mut [i32]) -> Vec<u8> {
    sums.fill(HALF);
    let lines = pixels[window.first * line_bytes..].chunks_exact(line_bytes);
    for (line, weight) in lines.zip(&window.weights) {
        for (sum, sample) in sums.iter_mut().zip(line) {
            *sum += i32::from(*sample) * weight;
        }
    }
    sums.iter().map(|sum| rounded(*sum)).collect()
}

/// The half was added before.
#[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
