//! Convolution as a matrix product: the nine pixels under the kernel are gathered into one row.
//!
//! For very few channels, for strides above 2, and for stride 2 where the weights are many and the pixels few. The
//! gathered rows are made in pieces of bounded size.

use rayon::prelude::*;

use super::{Conv2d, Operands};
use crate::buffer::{SharedPtr, written};
use crate::isa::Isa;
use crate::matrix::{self, Activation, Epilogue, Multiply, Target};
use crate::norm;
use crate::simd::Rows;

/// Numbers gathered at a time: 16 MiB, within reach of the last-level cache.
const GATHERED: usize = 4 << 20;

/// # Safety
/// The operands have the sizes that they state, and `out` has room for the result.
pub(super) unsafe fn run(isa: Isa, conv: &Conv2d, operands: Operands<'_>, out: *mut f32) {
    let sizes = operands.sizes;
    let (pixels, depth) = (sizes.output.0 * sizes.output.1, 9 * conv.inputs);
    let piece = (GATHERED / depth).clamp(1, pixels);
    for row in 0..sizes.rows {
        for start in (0..pixels).step_by(piece) {
            let count = piece.min(pixels - start);
            let fill = |to: *mut f32| gather(isa, conv, operands, (row, start, count), to);
            // SAFETY: `gather` writes every number of its rows.
            let gathered = unsafe { written(count * depth, fill) };
            let offset = (row * pixels + start) * conv.outputs;
            let multiply = Multiply {
                main: matrix::Operands {
                    rows: Rows {
                        first: gathered.as_ptr(),
                        stride: depth,
                        step: 1,
                        count,
                    },
                    packed: &conv.packed,
                },
                rows_of_image: pixels,
                branch: None,
                gated: false,
                epilogue: Epilogue {
                    bias: operands.biases_of(row).as_ptr(),
                    activation: Activation::None,
                    columns: conv.outputs,
                },
                target: Target {
                    // SAFETY: the piece lies within the result.
                    out: unsafe { out.add(offset) },
                    residual: operands
                        .residual
                        .map_or(std::ptr::null(), |r| r[offset..].as_ptr()),
                    stride: conv.outputs,
                    rows: count,
                },
            };
            // SAFETY: rows, bias and target have just been made to fit.
            unsafe { multiply.run(isa) };
        }
    }
}

/// Rows `start..start + count` of the image's pixels, each with its nine neighbours of all channels.
fn gather(
    isa: Isa,
    conv: &Conv2d,
    operands: Operands<'_>,
    (row, start, count): (usize, usize, usize),
    to: *mut f32,
) {
    let inputs = conv.inputs;
    let sizes = operands.sizes;
    let (source_h, source_w) = sizes.source;
    let image = &operands.x[row * source_h * source_w * inputs..][..source_h * source_w * inputs];
    let norm = operands.norm.map(|norm| norm.part(row * inputs, inputs));
    let to = SharedPtr::new(to);
    (0..count).into_par_iter().with_min_len(16).for_each(|index| {
        let (y, x) = ((start + index) / sizes.output.1, (start + index) % sizes.output.1);
        for tap in 0..9 {
            let at = |position: usize, offset: usize, size: usize| {
                (position * conv.stride + offset)
                    .checked_sub(conv.padding.before)
                    .filter(|&p| p < size)
            };
            // SAFETY: the caller made room for `count` rows of nine times the channels.
            let pixel =
                unsafe { std::slice::from_raw_parts_mut(to.get().add((index * 9 + tap) * inputs), inputs) };
            match (at(y, tap / 3, sizes.input.0), at(x, tap % 3, sizes.input.1)) {
                (Some(y), Some(x)) => {
                    let (y, x) = (operands.lines[y], operands.columns[x]);
                    let source = &image[(y * source_w + x) * inputs..][..inputs];
                    match norm {
                        Some(norm) => norm::apply(isa, source, norm, pixel),
                        None => pixel.copy_from_slice(source),
                    }
                }
                _ => pixel.fill(0.0),
            }
        }
    });
}
