//! Which pixels of an image are repainted, as plain pixels: white repaints, black keeps.
//!
//! The threshold and the reduction to latents are diffusers' (`image_processor.py`, `VaeImageProcessor`, and
//! `pipeline_stable_diffusion_inpaint.py`, `prepare_mask_latents`). The soft edge is ours: diffusers leaves putting the
//! kept pixels back to its user.

use pentimento_types::{RgbImage, Size};

/// The least grey level that is repainted: diffusers keeps what is below one half.
const PAINTED: u8 = 128;

/// Whether a mask, or one that says how much each pixel may change, leaves every pixel of every picture as it is, whatever size
/// it is stretched to.
#[must_use]
pub fn keeps_everything(mask: &RgbImage, is_change_map: bool) -> bool {
    let least = if is_change_map { 1 } else { PAINTED };
    mask.pixels().chunks_exact(3).all(|rgb| grey(rgb) < least)
}

/// One bit for each pixel of the image that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaskPixels {
    size: Size,
    painted: Vec<bool>,
}

impl MaskPixels {
    /// Reads a mask for an image of `size`: a pixel whose grey level is at least 128 is repainted.
    ///
    /// A mask of another size is stretched to it, each pixel taking the level of the nearest one, so that its edges
    /// stay where they are drawn.
    pub(crate) fn new(mask: &RgbImage, size: Size) -> Self {
        let painted = grey_levels(mask, size).map(|level| level >= PAINTED).collect();
        Self { size, painted }
    }

    /// Pixel by pixel; as many as the size has.
    pub(crate) fn of(size: Size, painted: Vec<bool>) -> Self {
        debug_assert_eq!(
            painted.len() as u64,
            size.pixels(),
            "a mask has a bit for each pixel"
        );
        Self { size, painted }
    }

    /// Everything is repainted.
    pub(crate) fn everything(size: Size) -> Self {
        let painted = vec![true; size.width as usize * size.height as usize];
        Self { size, painted }
    }

    /// Whether nothing is repainted.
    pub(crate) fn is_empty(&self) -> bool {
        !self.painted.contains(&true)
    }

    /// 1 where a pixel is kept and 0 where it is repainted, for the image padded to multiples of `step` by repeating
    /// its last column and line.
    pub(crate) fn kept(&self, step: u32) -> Vec<f32> {
        let padded = self.size.padded_to(step);
        self.sampled(padded.width, padded.height, 1)
            .map(|painted| if painted { 0.0 } else { 1.0 })
            .collect()
    }

    /// 1 where a latent pixel is repainted, line by line: the pixel at the top left of its block of `step` x `step`.
    pub(crate) fn latents(&self, step: u32) -> Vec<f32> {
        let padded = self.size.padded_to(step);
        self.sampled(padded.width / step, padded.height / step, step as usize)
            .map(|painted| if painted { 1.0 } else { 0.0 })
            .collect()
    }

    fn sampled(&self, width: u32, height: u32, step: usize) -> impl Iterator<Item = bool> {
        let (last_x, last_y) = (self.size.width as usize - 1, self.size.height as usize - 1);
        (0..height as usize).flat_map(move |y| {
            let line = (y * step).min(last_y) * self.size.width as usize;
            (0..width as usize).map(move |x| self.painted[line + (x * step).min(last_x)])
        })
    }

    /// How much of the new image each pixel shows, 0 to 255.
    ///
    /// A kept pixel shows nothing of it, whatever the soft edge: that runs inside the repainted part, rising with the
    /// distance to the nearest kept pixel until `soft_edge` pixels are passed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 0 to 1 times 255"
    )]
    pub(crate) fn coverage(&self, soft_edge: u32) -> Vec<u8> {
        if soft_edge == 0 {
            return self
                .painted
                .iter()
                .map(|painted| if *painted { 255 } else { 0 })
                .collect();
        }
        let width = f64::from(soft_edge) + 1.0;
        let share = |squared: f64| (255.0 * (squared.sqrt() / width).min(1.0)).round() as u8;
        self.squared_distances().into_iter().map(share).collect()
    }

    /// The squared Euclidean distance of each pixel to the nearest kept one; very large when there is none.
    ///
    /// Felzenszwalb and Huttenlocher 2012, "Distance Transforms of Sampled Functions": columns, then lines.
    fn squared_distances(&self) -> Vec<f64> {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let far = |painted: &bool| if *painted { FAR } else { 0.0 };
        let mut distances: Vec<f64> = self.painted.iter().map(far).collect();
        let mut envelope = Envelope::default();
        for x in 0..width {
            let column: Vec<f64> = (0..height).map(|y| distances[y * width + x]).collect();
            for (y, distance) in envelope.transform(&column).enumerate() {
                distances[y * width + x] = distance;
            }
        }
        for line in distances.chunks_exact_mut(width) {
            let before = line.to_vec();
            for (slot, distance) in line.iter_mut().zip(envelope.transform(&before)) {
                *slot = distance;
            }
        }
        distances
    }
}

/// Beyond the square of any side that a decoder lets through, and far inside what f64 holds exactly.
const FAR: f64 = 1e12;

/// The lower envelope of parabolas, one rooted at each sample.
#[derive(Debug, Default)]
struct Envelope {
    /// Root and height of each parabola on the envelope, and where it takes over from the one before.
    parts: Vec<(f64, f64, f64)>,
}

impl Envelope {
    /// For each position the minimum over all positions of `heights` plus the squared distance to it.
    fn transform(&mut self, heights: &[f64]) -> impl Iterator<Item = f64> {
        self.parts.clear();
        for (q, &height) in positions().zip(heights) {
            let mut from = f64::NEG_INFINITY;
            while let Some(&(root, other, begins)) = self.parts.last() {
                from = ((height + q * q) - (other + root * root)) / (2.0 * (q - root));
                if from > begins {
                    break;
                }
                self.parts.pop();
                from = f64::NEG_INFINITY;
            }
            self.parts.push((q, height, from));
        }
        let parts = &self.parts;
        let mut current = 0;
        positions().take(heights.len()).map(move |q| {
            while parts.get(current + 1).is_some_and(|next| next.2 <= q) {
                current += 1;
            }
            let (root, height, _) = parts[current];
            (q - root) * (q - root) + height
        })
    }
}

/// 0, 1, 2, … as numbers to calculate with.
fn positions() -> impl Iterator<Item = f64> {
    (0_u32..).map(f64::from)
}

/// For each of `wanted` pixels along a side the nearest of `given` ones, by their centres.
fn nearest(given: u32, wanted: u32) -> Vec<usize> {
    let (given, wanted) = (given as usize, wanted as usize);
    (0..wanted).map(|i| (2 * i + 1) * given / (2 * wanted)).collect()
}

/// The grey levels of a mask for an image of `size`, line by line, each pixel that of the nearest one.
pub(crate) fn grey_levels(mask: &RgbImage, size: Size) -> impl Iterator<Item = u8> {
    let columns = nearest(mask.size().width, size.width);
    let width = mask.size().width as usize;
    let lines = nearest(mask.size().height, size.height).into_iter();
    lines.flat_map(move |y| {
        let level = |x: &usize| {
            let at = 3 * (y * width + x);
            grey(&mask.pixels()[at..at + 3])
        };
        columns.iter().map(level).collect::<Vec<_>>()
    })
}

/// PIL's `convert("L")`: ITU-R 601 in 16-bit fixed point.
fn grey(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    u8::try_from((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    /// A mask from lines of `#` (repaint) and `.` (keep).
    fn from_lines(lines: &[&str]) -> MaskPixels {
        let width = u32::try_from(lines[0].len()).unwrap();
        let painted = lines
            .iter()
            .flat_map(|line| line.bytes().map(|c| c == b'#'))
            .collect();
        MaskPixels {
            size: size(width, u32::try_from(lines.len()).unwrap()),
            painted,
        }
    }

    #[test]
    fn grey_is_pillows() {
        // Computed with PIL 12: Image.new("RGB", (1, 1), colour).convert("L").
        for (colour, level) in [
            ([0, 0, 0], 0),
            ([255, 255, 255], 255),
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([127, 127, 127], 127),
            ([128, 128, 128], 128),
            ([130, 126, 129], 128),
        ] {
            assert_eq!(grey(&colour), level, "{colour:?}");
        }
    }

    #[test]
    fn level_128_repaints_and_127_keeps() {
        // diffusers: `mask / 255 < 0.5` is kept.
        for level in 0..=u8::MAX {
            let image = RgbImage::new(size(1, 1), vec![level; 3]).unwrap();
            let repaints = f32::from(level) / 255.0 >= 0.5;
            assert_eq!(repaints, level >= 128);
            let expected = if repaints { "#" } else { "." };
            assert_eq!(
                MaskPixels::new(&image, size(1, 1)),
                from_lines(&[expected]),
                "{level}"
            );
        }
    }

    #[test]
    fn a_mask_of_another_size_is_stretched() {
        let image = RgbImage::new(size(2, 2), [[255; 3], [0; 3], [0; 3], [255; 3]].concat()).unwrap();
        assert_eq!(
            MaskPixels::new(&image, size(4, 4)),
            from_lines(&["##..", "##..", "..##", "..##"])
        );
        assert_eq!(MaskPixels::new(&image, size(3, 1)), from_lines(&[".##"]));
        assert_eq!(MaskPixels::new(&image, size(1, 1)), from_lines(&["#"]));
        let one = RgbImage::new(size(1, 1), vec![200; 3]).unwrap();
        assert_eq!(
            MaskPixels::new(&one, size(5, 7)),
            MaskPixels::everything(size(5, 7))
        );
    }

    #[test]
    fn latents_take_the_top_left_pixel_and_padding_repeats_the_edge() {
        let mask = from_lines(&["#....", ".....", "..#.#", "....."]);
        assert_eq!(mask.latents(2), [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let kept = mask.kept(2);
        assert_eq!(kept.len(), 6 * 4);
        assert_eq!(kept[12..18], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        assert!(!mask.is_empty());
        assert!(from_lines(&["..", ".."]).is_empty());
    }

    #[test]
    fn a_mask_keeps_everything_when_nothing_of_it_is_painted_at_any_size() {
        let one_of = |level: u8| {
            let pixels = [[0; 3], [0; 3], [level; 3], [0; 3]].concat();
            RgbImage::new(size(2, 2), pixels).unwrap()
        };
        for (level, as_mask, as_map) in [
            (0, true, true),
            (1, true, false),
            (127, true, false),
            (128, false, false),
        ] {
            let mask = one_of(level);
            assert_eq!(keeps_everything(&mask, false), as_mask, "{level}");
            assert_eq!(keeps_everything(&mask, true), as_map, "{level}");
            assert_eq!(MaskPixels::new(&mask, size(5, 7)).is_empty(), as_mask, "{level}");
        }
    }

    #[test]
    fn distances_equal_those_of_a_search() {
        let mask = from_lines(&[
            "#####.##", "########", "###.####", "########", "#######.", "########",
        ]);
        let found = mask.squared_distances();
        let (width, height) = (8, 6);
        for y in 0..height {
            for x in 0..width {
                let expected = (0..width * height)
                    .filter(|at| !mask.painted[*at])
                    .map(|at| (at % width).abs_diff(x).pow(2) + (at / width).abs_diff(y).pow(2))
                    .min()
                    .unwrap();
                assert_eq!(
                    found[y * width + x],
                    f64::from(u32::try_from(expected).unwrap()),
                    "{x} {y}"
                );
            }
        }
    }

    #[test]
    fn a_soft_edge_lies_inside_and_leaves_kept_pixels_alone() {
        let mask = from_lines(&["..#####"]);
        assert_eq!(mask.coverage(0), [0, 0, 255, 255, 255, 255, 255]);
        assert_eq!(mask.coverage(1), [0, 0, 128, 255, 255, 255, 255]);
        assert_eq!(mask.coverage(3), [0, 0, 64, 128, 191, 255, 255]);
        assert_eq!(MaskPixels::everything(size(3, 3)).coverage(5), [255; 9]);
        assert_eq!(from_lines(&["..."]).coverage(5), [0; 3]);
    }
}
