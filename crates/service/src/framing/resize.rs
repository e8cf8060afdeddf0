//! A picture brought to a size with sides of another proportion: `resize_image` of A1111's `modules/images.py`, with Pillow's
//! arithmetic.

use pentimento_types::{ResizeMode, RgbImage, Size};

use pentimento_engine::Part;

use crate::image_codec::{resized, resized_part};

/// The picture in a size.
pub(super) fn fitted(image: &RgbImage, size: Size, mode: ResizeMode) -> RgbImage {
    if image.size() == size {
        return image.clone();
    }
    let (of_image, of_size) = (image.size(), size);
    // As A1111 compares them.
    let ratio = f64::from(of_size.width) / f64::from(of_size.height);
    let source_ratio = f64::from(of_image.width) / f64::from(of_image.height);
    let by_width = match mode {
        ResizeMode::Stretch => return resized(image, size),
        ResizeMode::Crop => ratio > source_ratio,
        ResizeMode::Fill => ratio < source_ratio,
    };
    // The other side of the two, where the ratios are equal.
    let by_height = match mode {
        ResizeMode::Crop => ratio <= source_ratio,
        ResizeMode::Stretch | ResizeMode::Fill => ratio >= source_ratio,
    };
    let scaled = |side: u32, by: u32, of: u32| {
        let scaled = u64::from(by) * u64::from(side) / u64::from(of);
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    let inner = Size {
        width: if by_width {
            size.width
        } else {
            scaled(of_image.width, size.height, of_image.height)
        },
        height: if by_height {
            size.height
        } else {
            scaled(of_image.height, size.width, of_image.width)
        },
    };
    if mode == ResizeMode::Crop {
        // It covers the canvas, and nothing beyond it is computed: of a line of pixels that would be gigabytes.
        let shown = |canvas: u32, inner: u32| {
            let start = inner / 2 - canvas / 2;
            start..start + canvas
        };
        let part = Part {
            columns: shown(size.width, inner.width),
            lines: shown(size.height, inner.height),
        };
        return resized_part(image, inner, &part);
    }
    placed(&resized(image, inner), size, ratio.total_cmp(&source_ratio))
}

/// The picture in the middle of a canvas that is no smaller: where it does not reach, its edges are drawn out, up and down where
/// the canvas is the taller one.
fn placed(inner: &RgbImage, size: Size, shape: std::cmp::Ordering) -> RgbImage {
    let offset = |canvas: u32, inner: u32| i64::from(canvas / 2) - i64::from(inner / 2);
    let x0 = offset(size.width, inner.size().width);
    let y0 = offset(size.height, inner.size().height);
    let (columns, lines) = (i64::from(inner.size().width), i64::from(inner.size().height));
    let at = |x: i64, y: i64| -> [u8; 3] {
        let start = usize::try_from(3 * (y * columns + x)).unwrap_or(0);
        let pixel = &inner.pixels()[start..start + 3];
        [pixel[0], pixel[1], pixel[2]]
    };
    let mut pixels = Vec::with_capacity(usize::try_from(size.rgb_bytes()).unwrap_or(0));
    for y in 0..i64::from(size.height) {
        for x in 0..i64::from(size.width) {
            let (inner_x, inner_y) = (x - x0, y - y0);
            let pixel = if (0..columns).contains(&inner_x) && (0..lines).contains(&inner_y) {
                at(inner_x, inner_y)
            } else if shape.is_lt() && (0..columns).contains(&inner_x) {
                let (edge, next) = edge(inner_y, lines);
                drawn_out(at(inner_x, edge), at(inner_x, next))
            } else if shape.is_gt() && (0..lines).contains(&inner_y) {
                let (edge, next) = edge(inner_x, columns);
                drawn_out(at(edge, inner_y), at(next, inner_y))
            } else {
                // A1111's canvas is black.
                [0; 3]
            };
            pixels.extend(pixel);
        }
    }
    RgbImage::new(size, pixels).expect("there is a pixel for each place")
}

/// The outermost place of a side before or behind which another one lies, and the one next to it.
fn edge(place: i64, length: i64) -> (i64, i64) {
    if place < 0 {
        (0, 1.min(length - 1))
    } else {
        (length - 1, (length - 2).max(0))
    }
}

/// What Pillow's bicubic filter makes of a line without height at the edge of a picture, which is how A1111 draws it out: the
/// weights of the two pixels that are there are 0.5625 and -0.0625 before they are brought to a sum of 1.
fn drawn_out(edge: [u8; 3], next: [u8; 3]) -> [u8; 3] {
    const BITS: u32 = 22;
    const OF_EDGE: i32 = (1.125 * (1 << BITS) as f64) as i32;
    const OF_NEXT: i32 = (-0.125 * (1 << BITS) as f64) as i32;
    let mut made = [0; 3];
    for (made, (edge, next)) in made.iter_mut().zip(edge.into_iter().zip(next)) {
        let sum = i32::from(edge) * OF_EDGE + i32::from(next) * OF_NEXT + (1 << (BITS - 1));
        *made = u8::try_from((sum >> BITS).clamp(0, 255)).unwrap_or(u8::MAX);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        let pixel = |at: u32| {
            let (x, y) = (at % width, at / width);
            [x * 40 % 256, y * 60 % 256, (x * y * 7) % 256].map(|level| u8::try_from(level).unwrap())
        };
        let pixels = (0..width * height).flat_map(pixel).collect();
        RgbImage::new(Size { width, height }, pixels).unwrap()
    }

    fn sum(image: &RgbImage) -> u64 {
        let weighed = image.pixels().iter().enumerate();
        weighed
            .map(|(at, level)| (at as u64 % 251 + 1) * u64::from(*level))
            .sum()
    }

    #[test]
    fn a_line_of_pixels_is_cropped_at_the_cost_of_what_is_seen() {
        let line = |width, height| {
            let size = Size { width, height };
            RgbImage::new(size, vec![200; 3 * 8192]).unwrap()
        };
        for image in [line(8192, 1), line(1, 8192)] {
            for (width, height) in [(2048, 2048), (2048, 64), (64, 2048), (1, 7)] {
                let size = Size { width, height };
                for mode in [ResizeMode::Stretch, ResizeMode::Crop, ResizeMode::Fill] {
                    let made = fitted(&image, size, mode);
                    assert_eq!(
                        (made.size(), made.pixels()[0].abs_diff(200) < 2),
                        (size, true),
                        "{mode:?}"
                    );
                }
            }
        }
    }

    /// Computed with `resize_image` of A1111 on Pillow 13; whole pictures, by a sum in which every pixel has its weight.
    #[test]
    fn every_mode_is_the_web_uis() {
        let expected = [
            ((12, 8), (16, 16), ResizeMode::Stretch, 10658129),
            ((12, 8), (16, 16), ResizeMode::Crop, 11499026),
            ((12, 8), (16, 16), ResizeMode::Fill, 9542255),
            ((12, 8), (24, 10), ResizeMode::Stretch, 9807847),
            ((12, 8), (24, 10), ResizeMode::Crop, 10545691),
            ((12, 8), (24, 10), ResizeMode::Fill, 9014637),
            ((7, 30), (16, 16), ResizeMode::Stretch, 11386224),
            ((7, 30), (16, 16), ResizeMode::Crop, 11841347),
            ((7, 30), (16, 16), ResizeMode::Fill, 10844844),
            ((7, 30), (24, 10), ResizeMode::Stretch, 10799875),
            ((7, 30), (24, 10), ResizeMode::Crop, 9743462),
            ((7, 30), (24, 10), ResizeMode::Fill, 10832777),
            ((9, 9), (16, 16), ResizeMode::Stretch, 10250091),
            ((9, 9), (16, 16), ResizeMode::Crop, 10250091),
            ((9, 9), (16, 16), ResizeMode::Fill, 10250091),
            ((9, 9), (24, 10), ResizeMode::Stretch, 9384449),
            ((9, 9), (24, 10), ResizeMode::Crop, 10380592),
            ((9, 9), (24, 10), ResizeMode::Fill, 7730399),
            ((12, 8), (7, 13), ResizeMode::Crop, 4402186),
        ];
        for (from, to, mode, wanted) in expected {
            let size = Size {
                width: to.0,
                height: to.1,
            };
            let made = fitted(&gradient(from.0, from.1), size, mode);
            assert_eq!(made.size(), size);
            assert_eq!(sum(&made), wanted, "{from:?} to {to:?}, {mode:?}");
        }
    }
}
