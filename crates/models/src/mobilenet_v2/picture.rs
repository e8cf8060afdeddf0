//! A picture as `nsfwjs` gives it to its network (`core.js`, `infer`): divided by 255, then stretched to 224 pixels.

use pentimento_types::RgbImage;

use crate::layers::{HostTensor, Result, host_tensor};

const SIDE: u32 = 224;

/// One line of the result between two of the source.
struct Between {
    first: usize,
    second: usize,
    fraction: f64,
}

/// (1, 224, 224, 3) in 0..1, without regard to the picture's proportions.
pub(super) fn prepare(picture: &RgbImage) -> Result<HostTensor> {
    let size = picture.size();
    let (rows, columns) = (lines(size.height), lines(size.width));
    let width = size.width as usize;
    let mut pixels = Vec::with_capacity((SIDE * SIDE * 3) as usize);
    for row in &rows {
        for column in &columns {
            for channel in 0..3 {
                let value = |y: usize, x: usize| {
                    // Divided in f32 as the reference does it, interpolated in f64 and rounded at the end.
                    f64::from(f32::from(picture.pixels()[(y * width + x) * 3 + channel]) / 255.0)
                };
                let across = |y: usize| {
                    let (left, right) = (value(y, column.first), value(y, column.second));
                    left + (right - left) * column.fraction
                };
                let (top, bottom) = (across(row.first), across(row.second));
                pixels.push((top + (bottom - top) * row.fraction) as f32);
            }
        }
    }
    host_tensor(pixels, &[1, SIDE as usize, SIDE as usize, 3])
}

/// TensorFlow's `resizeBilinear` with `alignCorners`: the first and the last line of both pictures lie on each other.
fn lines(source: u32) -> Vec<Between> {
    let ratio = f64::from(source - 1) / f64::from(SIDE - 1);
    let line = |number: u32| {
        let at = ratio * f64::from(number);
        let first = at.floor();
        Between {
            first: first as usize,
            second: (at.ceil() as usize).min(source as usize - 1),
            fraction: at - first,
        }
    };
    (0..SIDE).map(line).collect()
}
