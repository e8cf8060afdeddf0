//! Images of another size, byte for byte as Pillow's `Image.resize`.
//!
//! The arithmetic is that of Pillow 13, `src/libImaging/Resample.c`: a filter that is widened when shrinking; weights in fixed
//! point of 22 bits; two passes with rounding to 8 bits between them. The width changes first, unless the image loses more
//! than twice as many lines as columns. A direction whose length stays is left alone.
//!
//! A part of the result costs what the part takes, whatever the whole would be.

use std::borrow::Cow;
use std::f64::consts::PI;
use std::ops::Range;

use pentimento_types::{RgbImage, Size};

/// The fraction of a weight: 8 bits are the sample's, and 2 are kept for sums beyond 0..255.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Half of the last place that is kept.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// How a sample is weighed by its distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Lanczos' of radius 3: Pillow's `LANCZOS`.
    Lanczos,
    /// Keys' cubic convolution with a = -1/2, of radius 2: Pillow's `BICUBIC`.
    Bicubic,
}

impl Filter {
    /// In samples of the coarser image.
    const fn radius(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The operations in Pillow's order, so that no bit differs.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Lanczos => {
                let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// Columns and lines of a resized image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From left to right.
    pub columns: Range<u32>,
    /// From top to bottom.
    pub lines: Range<u32>,
}

/// The image in another size. Takes CPU time.
#[must_use]
pub fn resampled(image: &RgbImage, size: Size, filter: Filter) -> RgbImage {
    let whole = Part {
        columns: 0..size.width,
        lines: 0..size.height,
    };
    resampled_part(image, (size, filter), &whole)
}

/// A part, inside the image, of what [`resampled`] gives, at the cost of that part. Takes CPU time.
#[must_use]
pub fn resampled_part(image: &RgbImage, (size, filter): (Size, Filter), part: &Part) -> RgbImage {
    let cut = Size {
        width: part.columns.end - part.columns.start,
        height: part.lines.end - part.lines.start,
    };
    let pixels = resample(image.pixels(), image.size(), (size, filter), part);
    RgbImage::new(cut, pixels).expect("there is a pixel for each place of the part")
}

/// RGB pixels from size `before` to a part of size `after`.
fn resample(pixels: &[u8], before: Size, (after, filter): (Size, Filter), part: &Part) -> Vec<u8> {
    let columns = Windows::new(before.width, after.width, &part.columns, filter);
    let lines = Windows::new(before.height, after.height, &part.lines, filter);
    let line_bytes = before.width as usize * 3;
    // Signed, so that an image that gets wider and lower goes down first.
    let lost = |before: u32, after: u32| i64::from(before) - i64::from(after);
    let lost_lines = lost(before.height, after.height);
    if lost_lines > 0 && lost_lines > 2 * lost(before.width, after.width) {
        let lower = lines.down(pixels, line_bytes);
        return columns.across(&lower, line_bytes).into_owned();
    }
    // No other lines are looked at by the second pass.
    let seen = lines.seen();
    let narrower = columns.across(
        &pixels[seen.start * line_bytes..seen.end * line_bytes],
        line_bytes,
    );
    let lines = lines.from(seen.start);
    match narrower {
        Cow::Borrowed(pixels) => lines.down(pixels, columns.line_bytes()).into_owned(),
        Cow::Owned(pixels) => lines.down(&pixels, columns.line_bytes()).into_owned(),
    }
}

/// The samples that one sample of the result is made of.
struct Window {
    /// The first of them.
    first: usize,
    /// How much each counts, times 2 to the power of `PRECISION_BITS`.
    weights: Vec<i32>,
}

/// One window for each sample of a part of the result, in one direction.
struct Windows {
    windows: Vec<Window>,
    /// Every sample is itself.
    is_identity: bool,
}

impl Windows {
    /// Those of `part` of `after` samples, in a line of `before` samples.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "places are cut as in C, after they are bounded by 0 and `before`; weights are at most a few units"
    )]
    fn new(before: u32, after: u32, part: &Range<u32>, filter: Filter) -> Self {
        if before == after {
            let itself = |at: u32| Window {
                first: at as usize,
                weights: vec![1 << PRECISION_BITS],
            };
            return Self {
                windows: part.clone().map(itself).collect(),
                is_identity: *part == (0..before),
            };
        }
        let scale = f64::from(before) / f64::from(after);
        // An enlarged image is still filtered at the distance of its own samples.
        let widened = scale.max(1.0);
        let support = filter.radius() * widened;
        let window = |at: u32| {
            let centre = (f64::from(at) + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as u32;
            let end = (centre + support + 0.5).min(f64::from(before)) as u32;
            let weight = |sample: u32| filter.weight((f64::from(sample) - centre + 0.5) * (1.0 / widened));
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
        Self {
            windows: part.clone().map(window).collect(),
            is_identity: false,
        }
    }

    /// The samples that any of them looks at.
    fn seen(&self) -> Range<usize> {
        let first = self.windows.iter().map(|window| window.first).min();
        let end = self
            .windows
            .iter()
            .map(|window| window.first + window.weights.len());
        first.unwrap_or(0)..end.max().unwrap_or(0)
    }

    /// The same for samples of which the first `cut` are not there.
    fn from(mut self, cut: usize) -> Self {
        self.windows.iter_mut().for_each(|window| window.first -= cut);
        self
    }

    /// Bytes of a line with a pixel for each window.
    fn line_bytes(&self) -> usize {
        self.windows.len() * 3
    }

    /// Every line of `pixels`, with a pixel for each window.
    fn across<'a>(&self, pixels: &'a [u8], line_bytes: usize) -> Cow<'a, [u8]> {
        if self.is_identity {
            return Cow::Borrowed(pixels);
        }
        let lines = pixels.chunks_exact(line_bytes);
        lines.flat_map(|line| across(line, &self.windows)).collect()
    }

    /// A line for each window, out of lines of `line_bytes` bytes each.
    fn down<'a>(&self, pixels: &'a [u8], line_bytes: usize) -> Cow<'a, [u8]> {
        if self.is_identity {
            return Cow::Borrowed(pixels);
        }
        let mut sums = vec![0; line_bytes];
        let windows = self.windows.iter();
        windows
            .flat_map(|window| down(pixels, window, line_bytes, &mut sums))
            .collect()
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
