//! A block of rows times a group of packed panels, as pairs of bfloat16: [`product`](super::product::product) for
//! processors with instructions for that.

use super::product::{DEPTH, Operands, Panels, prefetch_after};
use super::{Epilogue, Target};
use crate::pairs::{PairProduct, PairWork, Parts, ROWS, STEP, interleave, narrow};
use crate::simd::{Accumulate, PANEL, Product, Rows, Simd};

/// Panels that are multiplied at once.
const WIDE: usize = 2;

/// Words of pairs of a row of the left operand.
const WORDS: usize = DEPTH / 2;

/// Rows of the largest tile of any unit, for [`TILE`].
const TILE_ROWS: usize = 2 * ROWS;

/// Room for the sums of a tile.
const TILE: usize = WIDE * TILE_ROWS * PANEL;

/// Room for the widened panels of a step, and for one of the two parts of them.
const WIDENED: usize = WIDE * DEPTH * PANEL;
const SPLIT: usize = WIDE * WORDS * PANEL;

const _: () = assert!(DEPTH.is_multiple_of(STEP));

/// Numbers of scratch memory for a product of `rows` rows and `panels` packed panels.
pub(super) fn room(rows: usize, panels: usize) -> usize {
    TILE + WIDENED + 2 * SPLIT + 2 * rows.next_multiple_of(ROWS) * WORDS + panels * rows * PANEL
}

/// Parts of the scratch memory.
#[derive(Clone, Copy)]
struct Scratch {
    /// The sums of a tile.
    tile: *mut f32,
    widened: *mut f32,
    weights: Parts,
    rows: Parts,
    /// \[panel\]\[row\]\[16\]
    sums: *mut f32,
}

impl Scratch {
    /// # Safety
    /// There is [`room`] for so many rows.
    unsafe fn new(scratch: *mut f32, rows: usize) -> Self {
        let words = rows.next_multiple_of(ROWS) * WORDS;
        // SAFETY: vouched for by the caller.
        unsafe {
            let widened = scratch.add(TILE);
            let weights = widened.add(WIDENED);
            let left = weights.add(2 * SPLIT);
            let parts = |first: *mut f32, size: usize| Parts {
                high: first,
                low: Some(first.add(size)),
            };
            Self {
                tile: scratch,
                widened,
                weights: parts(weights, SPLIT),
                rows: parts(left, words),
                sums: left.add(2 * words),
            }
        }
    }
}

/// `main` and, as if the inner dimension went on with it, `branch`: rows · `panels`, with `epilogue`, into `target`. Weights
/// that are not pairs are split, and the rows with them. `scratch` has [`room`] for them.
///
/// # Safety
/// All rows can be read to the packed depth, the panels exist in both, and branch and target have as many rows.
#[expect(
    clippy::too_many_arguments,
    reason = "the token of the instruction set is one of them"
)]
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    s: S,
    work: &PairWork,
    (main, branch): (Operands<'_>, Option<Operands<'_>>),
    panels: Panels,
    (epilogue, target): (Epilogue, Target),
    scratch: *mut f32,
) {
    let Panels { first, count, each } = panels;
    let height = main.rows.count;
    // SAFETY: vouched for by the caller.
    let scratch = unsafe { Scratch::new(scratch, height) };
    let (mut operands, mut next_operands) = (main, branch);
    let (mut k0, mut accumulate) = (0, Accumulate::Overwrite);
    loop {
        let Operands { rows, packed } = operands;
        let depth = packed.depth();
        let k = DEPTH.min(depth - k0);
        let padded = k.next_multiple_of(STEP);
        let through = k0 + k == depth;
        let last = through && next_operands.is_none();
        let is_split = !packed.is_pairs();
        let left = match is_split {
            true => scratch.rows,
            false => scratch.rows.only_high(),
        };
        for row in 0..height {
            // SAFETY: the rows have this part of the depth, and the scratch has room for it.
            unsafe {
                let from = rows.first.add(row * rows.stride + k0);
                narrow(s, work.rounding(), from, (k, padded), left.at(row * padded / 2));
            }
        }
        let mut panel = 0;
        while panel < count {
            let wide = WIDE.min(count - panel);
            // SAFETY: the caller vouches for panels, rows and target; every range stays within them.
            unsafe {
                let weights = weights(s, work, operands, (first + panel, wide), (k0, k), scratch);
                let weights_in_turn = (packed, next_operands.map(|next| next.packed), main.packed);
                let product = Product {
                    a: Rows {
                        first: left.high,
                        stride: padded / 2,
                        step: 1,
                        count: height,
                    },
                    k: padded / 2,
                    panels: wide,
                    w: weights.high,
                    next_w: weights.next,
                    c: scratch.sums.add(panel * height * PANEL),
                    stride: PANEL,
                    next_c: height * PANEL,
                    accumulate,
                    prefetch: prefetch_after((panel, wide), (k0, k), panels, weights_in_turn),
                };
                let low = left.low.zip(weights.low);
                let low = low.map(|(left, weights)| (left.cast_const(), weights));
                let pairs = PairProduct { product, low };
                if last {
                    let panels = ((first + panel) / each, wide / each);
                    multiply_and_apply(s, work, pairs, (epilogue, each, panels, target), scratch.tile);
                } else {
                    pairs.run(s, work);
                }
            }
            panel += wide;
        }
        accumulate = Accumulate::Continue;
        k0 += k;
        if through {
            let Some(next) = next_operands.take() else { break };
            (operands, k0) = (next, 0);
        }
    }
}

/// Panels of the right operand as pairs.
struct Weights {
    high: *const f32,
    low: Option<*const f32>,
    /// From one panel to the next.
    next: usize,
}

/// Rows `start..start + length` of `count` panels from `panel` on: in place, or split into the scratch memory.
///
/// # Safety
/// They exist.
#[expect(
    clippy::too_many_arguments,
    reason = "the token of the instruction set is one of them"
)]
#[inline(always)]
unsafe fn weights<S: Simd>(
    s: S,
    work: &PairWork,
    operands: Operands<'_>,
    (panel, count): (usize, usize),
    (start, length): (usize, usize),
    scratch: Scratch,
) -> Weights {
    if let Some((high, next)) = operands.packed.pairs(panel, start) {
        return Weights {
            high,
            low: None,
            next,
        };
    }
    let padded = length.next_multiple_of(STEP);
    let next = padded / 2 * PANEL;
    // SAFETY: vouched for by the caller; the scratch has room for two panels.
    unsafe {
        let (numbers, next_panel) =
            operands
                .packed
                .panels(s, (panel, count), (start, length), scratch.widened);
        for panel in 0..count {
            let to = scratch.weights.at(panel * next);
            interleave(
                s,
                work.rounding(),
                numbers.add(panel * next_panel),
                (length, padded),
                to,
            );
        }
    }
    Weights {
        high: scratch.weights.high,
        low: scratch.weights.low.map(<*mut f32>::cast_const),
        next,
    }
}

/// Runs the last part of a product tile by tile, each followed by its epilogue. The sums of a product of one part go to
/// `tile`.
///
/// # Safety
/// As [`product`], for these panels of the result.
#[inline(always)]
unsafe fn multiply_and_apply<S: Simd>(
    s: S,
    work: &PairWork,
    pairs: PairProduct,
    (epilogue, each, (first, panels), target): (Epilogue, usize, (usize, usize), Target),
    tile: *mut f32,
) {
    let PairProduct { product, low } = pairs;
    for (number, start) in (0..product.a.count).step_by(work.rows()).enumerate() {
        let count = work.rows().min(product.a.count - start);
        // SAFETY: these rows are among those that the caller vouches for.
        unsafe {
            let (c, next_c) = match product.accumulate {
                Accumulate::Overwrite => (tile, count * PANEL),
                Accumulate::Continue | Accumulate::Add => (product.c.add(start * PANEL), product.next_c),
            };
            let part = PairProduct {
                product: Product {
                    a: product.a.part(start, count),
                    c,
                    next_c,
                    prefetch: product.prefetch.after(number),
                    ..product
                },
                low: low.map(|(rows, weights)| (rows.add(start * product.a.stride), weights)),
            };
            part.run(s, work);
            epilogue.apply(s, (first, panels, each), (c, next_c), target.part(start, count));
        }
    }
}
