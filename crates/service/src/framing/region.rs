//! The part of a picture that is computed when only what is masked is: `get_crop_region` and `expand_crop_region` of A1111's
//! `modules/masking.py`.

use pentimento_types::{RgbImage, Size};

use super::grey::Grey;

/// A rectangle inside a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) size: Size,
}

impl Region {
    /// What is not black, with so many pixels around it as the picture has, and with the proportion of `computed` as far as
    /// the picture reaches. None where all is black.
    pub(super) fn around(mask: &Grey, padding: u32, computed: Size) -> Option<Self> {
        let (width, height) = (i64::from(mask.size.width), i64::from(mask.size.height));
        let lines = mask.levels.chunks_exact(mask.size.width as usize);
        let painted = |line: &[u8]| line.iter().any(|level| *level > 0);
        let top = lines.clone().position(painted)?;
        let bottom = lines.clone().rposition(painted)?;
        let first = lines
            .clone()
            .filter_map(|line| line.iter().position(|level| *level > 0));
        let last = lines.filter_map(|line| line.iter().rposition(|level| *level > 0));
        let (left, right) = (first.min()?, last.max()?);
        let [left, top, right, bottom] = [left, top, right + 1, bottom + 1].map(|at| at as i64);
        let padding = i64::from(padding);
        let (mut x1, mut x2) = ((left - padding).max(0), (right + padding).min(width));
        let (mut y1, mut y2) = ((top - padding).max(0), (bottom + padding).min(height));
        let of_region = (x2 - x1) as f64 / (y2 - y1) as f64;
        let of_computed = f64::from(computed.width) / f64::from(computed.height);
        if of_region > of_computed {
            let wanted = (x2 - x1) as f64 / of_computed;
            (y1, y2) = grown((y1, y2), wanted, height);
        } else {
            let wanted = (y2 - y1) as f64 * of_computed;
            (x1, x2) = grown((x1, x2), wanted, width);
        }
        let side = |from: i64, to: i64| u32::try_from(to - from).unwrap_or(1);
        Some(Self {
            x: u32::try_from(x1).unwrap_or(0),
            y: u32::try_from(y1).unwrap_or(0),
            size: Size {
                width: side(x1, x2),
                height: side(y1, y2),
            },
        })
    }

    /// All of a picture of this size.
    pub(super) const fn whole(size: Size) -> Self {
        Self { x: 0, y: 0, size }
    }

    /// This part of a picture that reaches as far.
    pub(super) fn cut(self, image: &RgbImage) -> RgbImage {
        let mut pixels = Vec::with_capacity(usize::try_from(self.size.rgb_bytes()).unwrap_or(0));
        for y in 0..self.size.height {
            pixels.extend_from_slice(&image.pixels()[self.line(y, image.size())]);
        }
        RgbImage::new(self.size, pixels).expect("each line has the region's width")
    }

    /// Where line `y` of the region lies in the bytes of a picture of this size.
    pub(super) fn line(self, y: u32, of: Size) -> std::ops::Range<usize> {
        let start = 3 * ((self.y + y) as usize * of.width as usize + self.x as usize);
        start..start + 3 * self.size.width as usize
    }
}

/// A stretch that grows to both sides to the wanted length, and moves where it would leave the picture.
fn grown((mut from, mut to): (i64, i64), wanted: f64, limit: i64) -> (i64, i64) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "Python's int() on a length of some thousand pixels"
    )]
    let more = (wanted - (to - from) as f64) as i64;
    // Python's `//`, which rounds down; what is added is never negative but for rounding.
    let before = more.div_euclid(2);
    from -= before;
    to += more - before;
    if to >= limit {
        let beyond = to - limit;
        to -= beyond;
        from -= beyond;
    }
    if from < 0 {
        to -= from;
        from = 0;
    }
    (from, to.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: Size = Size {
        width: 100,
        height: 80,
    };

    fn mask(x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> Grey {
        let inside = |at: u32| x.contains(&(at % PICTURE.width)) && y.contains(&(at / PICTURE.width));
        Grey {
            size: PICTURE,
            levels: (0..PICTURE.width * PICTURE.height)
                .map(|at| if inside(at) { 1 } else { 0 })
                .collect(),
        }
    }

    fn around(mask: &Grey, padding: u32, (width, height): (u32, u32)) -> (u32, u32, u32, u32) {
        let region = Region::around(mask, padding, Size { width, height }).unwrap();
        (region.x, region.y, region.size.width, region.size.height)
    }

    /// Computed with A1111's two functions.
    #[test]
    fn a_region_is_the_web_uis() {
        let middle = mask(40..60, 30..35);
        assert_eq!(around(&middle, 0, (64, 64)), (40, 23, 20, 20));
        assert_eq!(around(&middle, 4, (64, 64)), (36, 19, 28, 28));
        assert_eq!(around(&middle, 0, (128, 64)), (40, 28, 20, 10));
        let corner = mask(90..100, 0..4);
        assert_eq!(around(&corner, 0, (64, 64)), (90, 0, 10, 10));
        assert_eq!(around(&corner, 32, (64, 64)), (58, 0, 42, 42));
        let tall = mask(0..1, 0..80);
        assert_eq!(around(&tall, 0, (64, 64)), (0, 0, 80, 80));
        assert_eq!(
            around(&tall, 0, (512, 64)),
            (0, 0, 100, 80),
            "as far as the picture reaches"
        );
    }

    #[test]
    fn nothing_is_around_nothing() {
        let size = Size { width: 8, height: 8 };
        assert_eq!(Region::around(&mask(0..0, 0..0), 4, size), None);
    }

    #[test]
    fn a_cut_has_the_pixels_of_its_place() {
        let size = Size { width: 3, height: 2 };
        let image = RgbImage::new(size, (0..18).collect()).unwrap();
        let region = Region {
            x: 1,
            y: 1,
            size: Size { width: 2, height: 1 },
        };
        assert_eq!(region.cut(&image).pixels(), [12, 13, 14, 15, 16, 17]);
    }
}
