//! An invisible watermark in the pixels, which survives what a file's marks do not: another program that saves it, another
//! format, JPEG, and, within bounds, another size.
//!
//! The scheme is `dwtDctSvd` of the Python package `invisible-watermark` 0.2.0 (`imwatermark/dwtDctSvd.py`), whose decoder finds
//! it: of the chroma U the low band of a Haar transform is cut into blocks of 4x4, and the largest singular value of block k
//! says bit k of the message by the half of a step of 36 in which it lies. The package takes the singular values of each
//! block's cosine transform, which are those of the block, as the transform is orthogonal.
//!
//! Two things are done better than upstream's encoder does them, at the same bits: a value goes to the nearest place that says
//! its bit, up or down, and only U is changed, at the precision of RGB.

use pentimento_types::{RgbImage, Size};

use super::resize::resized;

/// The message: 48 bits, the first letters of our name, most significant bit first.
const MESSAGE: &[u8; 6] = b"pentim";
const BITS: usize = 48;
/// Of the singular value.
const STEP: f64 = 36.0;
/// Pixels on a side of a block: four coefficients of two pixels each.
const BLOCK: usize = 8;
/// The package reads no smaller picture, and a small one has too few blocks for each bit.
const LEAST_PIXELS: u64 = 256 * 256;
/// So many bits must be right. Of a picture without the message each is right by half: four wrong ones of 48 come with a
/// chance of 8e-10.
const LEAST_RIGHT: usize = 44;
/// A larger picture is not tried in other sizes.
const MOST_PIXELS_SCALED: u64 = 2048 * 2048;
/// Pictures are made with sides of its multiples.
const SIDE: u64 = 64;
const MOST_SIDE: u64 = 4096;

/// Whether a picture of this size can hold it.
pub(crate) fn fits(size: Size) -> bool {
    size.pixels() >= LEAST_PIXELS && size.width as usize >= BLOCK && size.height as usize >= BLOCK
}

/// Writes the message into a picture; a smaller one than 256 by 256 pixels stays as it is. The same picture gives the same
/// result.
#[must_use]
pub fn with_watermark(image: RgbImage) -> RgbImage {
    let size = image.size();
    if !fits(size) {
        return image;
    }
    let mut pixels = image.into_pixels();
    let grid = Grid::of(size);
    for number in 0..grid.blocks() {
        mark_block(&mut pixels, (&grid, number), bit(number));
    }
    RgbImage::new(size, pixels).expect("as many bytes as before")
}

/// Whether the message is in a picture, also in one whose size was changed by no more than a half where it was made with sides of
/// multiples of 64.
#[must_use]
pub fn has_watermark(image: &RgbImage) -> bool {
    (fits(image.size()) && says_message(image))
        || (image.size().pixels() <= MOST_PIXELS_SCALED
            && former_sizes(image.size()).any(|size| says_message(&resized(image, size))))
}

fn says_message(image: &RgbImage) -> bool {
    right_bits(image) >= LEAST_RIGHT
}

/// How many of the message's bits a picture says.
fn right_bits(image: &RgbImage) -> usize {
    let grid = Grid::of(image.size());
    let mut votes = [(0_usize, 0_usize); BITS];
    for number in 0..grid.blocks() {
        let (value, _) = largest(&low_band(image.pixels(), &grid, number));
        let vote = &mut votes[number % BITS];
        vote.0 += usize::from(value.rem_euclid(STEP) > STEP / 2.0);
        vote.1 += 1;
    }
    let right = votes.iter().enumerate().filter(|(at, (ones, all))| {
        // As upstream has it: the mean of the votes in 255ths above 127.
        *all > 0 && (ones * 255 > 127 * all) == bit(*at)
    });
    right.count()
}

fn bit(number: usize) -> bool {
    let at = number % BITS;
    MESSAGE[at / 8] & (0x80 >> (at % 8)) != 0
}

/// Sizes, both sides multiples of 64, from which one may have come by scaling to between two thirds and three halves. None is
/// larger than what is tried at all, so that looking takes no more room and time than that.
fn former_sizes(size: Size) -> impl Iterator<Item = Size> {
    let (width, height) = (u64::from(size.width), u64::from(size.height));
    (1..=MOST_SIDE / SIDE).filter_map(move |count| {
        let side = count * SIDE;
        let other = (side * height + width / 2) / width;
        let near = (other + SIDE / 2) / SIDE * SIDE;
        // Scaling has rounded both sides.
        let is_near = near.abs_diff(other) <= 2;
        let is_in_range = side * 3 >= width * 2 && side * 2 <= width * 3;
        let former = Size {
            width: u32::try_from(side).ok()?,
            height: u32::try_from(near).ok()?,
        };
        let is_tried = is_near && is_in_range && former != size;
        (is_tried && fits(former) && former.pixels() <= MOST_PIXELS_SCALED).then_some(former)
    })
}

/// Where the blocks are.
struct Grid {
    width: usize,
    columns: usize,
    rows: usize,
}

impl Grid {
    fn of(size: Size) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        Self {
            width,
            columns: width / BLOCK,
            rows: height / BLOCK,
        }
    }

    fn blocks(&self) -> usize {
        self.columns * self.rows
    }

    /// The first byte of pixel (x, y) of a block.
    fn at(&self, number: usize, (x, y): (usize, usize)) -> usize {
        let (row, column) = (number / self.columns, number % self.columns);
        3 * ((row * BLOCK + y) * self.width + column * BLOCK + x)
    }
}

type Matrix = [[f64; 4]; 4];

/// The chroma U as OpenCV computes it from bytes, in 14 bits behind the point.
fn chroma(pixel: [u8; 3]) -> f64 {
    const HALF: i32 = 1 << 13;
    let [red, green, blue] = pixel.map(i32::from);
    let luma = (blue * 1868 + green * 9617 + red * 4899 + HALF) >> 14;
    let chroma = ((blue - luma) * 8061 + (128 << 14) + HALF) >> 14;
    f64::from(chroma.clamp(0, 255))
}

/// The low band of the Haar transform of a block's U: half the sum of each two by two pixels.
fn low_band(pixels: &[u8], grid: &Grid, number: usize) -> Matrix {
    let mut band = Matrix::default();
    for y in 0..BLOCK {
        for x in 0..BLOCK {
            let at = grid.at(number, (x, y));
            band[y / 2][x / 2] += chroma([pixels[at], pixels[at + 1], pixels[at + 2]]) / 2.0;
        }
    }
    band
}

/// The largest singular value, and its two vectors' product: what is added to the matrix to make it larger by one.
///
/// By power iteration from the vector of ones, which is near it: the band is positive throughout.
fn largest(matrix: &Matrix) -> (f64, Matrix) {
    const ROUNDS: usize = 8;
    let norm = |vector: [f64; 4]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scaled = |vector: [f64; 4], by: f64| vector.map(|x| if by > 0.0 { x / by } else { 0.5 });
    let mut right = [0.5; 4];
    let (mut left, mut value) = ([0.5; 4], 0.0);
    for _ in 0..ROUNDS {
        let product = matrix.map(|row| row.iter().zip(right).map(|(a, b)| a * b).sum::<f64>());
        value = norm(product);
        left = scaled(product, value);
        let mut back = [0.0; 4];
        for (row, factor) in matrix.iter().zip(left) {
            for (sum, element) in back.iter_mut().zip(row) {
                *sum += element * factor;
            }
        }
        right = scaled(back, norm(back));
    }
    (value, left.map(|a| right.map(|b| a * b)))
}

/// Moves a block's singular value to a place that says the bit: the nearer one, or the other where colours at the end of their
/// range do not let it get there.
fn mark_block(pixels: &mut [u8], (grid, number): (&Grid, usize), bit: bool) {
    let before = block(pixels, grid, number);
    let (value, _) = largest(&low_band(pixels, grid, number));
    let place = if bit { 0.75 } else { 0.25 } * STEP;
    let below = ((value - place) / STEP).floor() * STEP + place;
    let mut targets = [below, below + STEP];
    if value - below > STEP / 2.0 {
        targets.swap(0, 1);
    }
    let mut best: Option<(f64, Vec<u8>)> = None;
    for target in targets {
        put_block(pixels, (grid, number), &before);
        let missed = approach(pixels, (grid, number), target);
        if best.as_ref().is_none_or(|(least, _)| missed < *least) {
            best = Some((missed, block(pixels, grid, number)));
        }
        if missed < STEP / 8.0 {
            break;
        }
    }
    if let Some((_, after)) = best {
        put_block(pixels, (grid, number), &after);
    }
}

/// By how much the target was missed. A second round takes back what rounding has done.
fn approach(pixels: &mut [u8], (grid, number): (&Grid, usize), target: f64) -> f64 {
    const ROUNDS: usize = 3;
    for _ in 0..ROUNDS {
        let (value, direction) = largest(&low_band(pixels, grid, number));
        let missing = target - value;
        if missing.abs() < STEP / 36.0 {
            break;
        }
        for y in 0..BLOCK {
            for x in 0..BLOCK {
                let at = grid.at(number, (x, y));
                add_chroma(&mut pixels[at..at + 3], direction[y / 2][x / 2] * missing / 2.0);
            }
        }
    }
    (target - largest(&low_band(pixels, grid, number)).0).abs()
}

/// Changes U and keeps luma and the other chroma: blue and a little of green.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and clamped to a byte"
)]
fn add_chroma(pixel: &mut [u8], by: f64) {
    for (channel, factor) in [(1, -0.395), (2, 2.032)] {
        pixel[channel] = (f64::from(pixel[channel]) + factor * by)
            .round()
            .clamp(0.0, 255.0) as u8;
    }
}

/// The bytes of a block, line by line.
fn block(pixels: &[u8], grid: &Grid, number: usize) -> Vec<u8> {
    let lines = (0..BLOCK).map(|y| grid.at(number, (0, y)));
    lines
        .flat_map(|at| pixels[at..at + 3 * BLOCK].iter().copied())
        .collect()
}

fn put_block(pixels: &mut [u8], (grid, number): (&Grid, usize), bytes: &[u8]) {
    for (y, line) in bytes.chunks_exact(3 * BLOCK).enumerate() {
        let at = grid.at(number, (0, y));
        pixels[at..at + 3 * BLOCK].copy_from_slice(line);
    }
}

#[cfg(test)]
mod tests;
