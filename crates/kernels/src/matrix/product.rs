//! A block of rows times a group of packed panels, with the epilogue applied tile by tile.

use super::{Epilogue, Target};
use crate::packed::Packed;
use crate::simd::{Accumulate, PANEL, Prefetch, Product, Rows, Simd};

/// How much of the inner dimension is taken at a time: a panel of it, 20 KiB, stays in the L1 cache beside the rows.
/// The sums run on from block to block, so the value does not change a result.
pub(crate) const DEPTH: usize = 320;

/// Rows that lie a multiple of this many numbers apart, 4 KiB, fall into the same few sets of the caches and evict each
/// other before they have been used. They are copied first, which takes a twentieth of the time and saves up to a quarter.
const ALIASING: usize = 1024;

/// Room for the widened panels of a step.
const WIDENED: usize = 2 * DEPTH * PANEL;

/// Rows of the largest tile of any instruction set, for [`TILE`].
const TILE_ROWS: usize = 12;

/// Room for the sums of a tile.
const TILE: usize = 2 * TILE_ROWS * PANEL;

/// Numbers of scratch memory for a product of `rows` rows and `panels` packed panels.
pub(crate) fn room(rows: usize, panels: usize) -> usize {
    TILE + WIDENED + rows * DEPTH + panels * rows * PANEL
}

/// Rows and the packed weights that they are multiplied by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands<'a> {
    pub(crate) rows: Rows,
    pub(crate) packed: &'a Packed,
}

impl Operands<'_> {
    /// `count` rows from row `start` on.
    ///
    /// # Safety
    /// They exist.
    pub(super) unsafe fn part(self, start: usize, count: usize) -> Self {
        Self {
            // SAFETY: vouched for by the caller.
            rows: unsafe { self.rows.part(start, count) },
            ..self
        }
    }
}

/// Which panels of the packed weights take part.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) first: usize,
    pub(super) count: usize,
    /// How many of them make one panel of the result: two under GEGLU.
    pub(super) each: usize,
}

/// The panels to prefetch while `wide` of `panels`, from the one at `panel` on, are multiplied in the rows `k0..k0 + k` of their
/// depth: those that follow in this group, after its last those of the next part of the depth, and after the last part those of
/// the next group. Of the weights that are multiplied now, those that the depth goes on with, and those that it begins with.
#[inline(always)]
pub(super) fn prefetch_after(
    (panel, wide): (usize, usize),
    (k0, k): (usize, usize),
    Panels { first, count, .. }: Panels,
    (now, next, main): (&Packed, Option<&Packed>, &Packed),
) -> Prefetch {
    let through = k0 + k == now.depth();
    let (from, following, start) = match (panel + wide < count, through, next) {
        (true, ..) => (now, first + panel + wide, k0),
        (false, false, _) => (now, first, k0 + k),
        (false, true, Some(next)) => (next, first, 0),
        (false, true, None) => (main, first + count, 0),
    };
    from.prefetch_of((following, wide), start)
}

/// `main` and, as if the inner dimension went on with it, `branch`: rows · `panels`, with `epilogue`, into `target`.
/// `scratch` has [`room`] for them.
///
/// The epilogue of a tile runs as soon as its sums are complete, while they are in the L1 cache: its few lines of the
/// result are on their way to memory while the next tile is multiplied. The epilogue of a whole block would wait for each
/// of its lines.
///
/// # Safety
/// All rows can be read to the packed depth, the panels exist in both, and branch and target have as many rows.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    s: S,
    (main, branch): (Operands<'_>, Option<Operands<'_>>),
    panels: Panels,
    (epilogue, target): (Epilogue, Target),
    scratch: *mut f32,
) {
    const { assert!(S::ROWS <= TILE_ROWS) };
    let Panels { first, count, each } = panels;
    let height = main.rows.count;
    // SAFETY: the scratch has room for these parts.
    let (widened, copies, sums) = unsafe {
        let copies = scratch.add(TILE + WIDENED);
        (scratch.add(TILE), copies, copies.add(height * DEPTH))
    };
    // Whether a tile holds both the hidden columns and their gates.
    let by_tiles = each <= S::PANELS;
    let (mut operands, mut next_operands) = (main, branch);
    let (mut k0, mut accumulate) = (0, Accumulate::Overwrite);
    loop {
        let Operands { rows, packed } = operands;
        let depth = packed.depth();
        let k = DEPTH.min(depth - k0);
        let through = k0 + k == depth;
        let last = through && next_operands.is_none();
        // SAFETY: the rows have this part of the depth, and the scratch has room for it.
        let a = unsafe {
            let part = Rows {
                first: rows.first.add(k0),
                ..rows
            };
            if rows.stride.is_multiple_of(ALIASING) {
                side_by_side(part, k, copies)
            } else {
                part
            }
        };
        let mut panel = 0;
        while panel < count {
            let wide = S::PANELS.min(count - panel);
            // SAFETY: the caller vouches for panels, rows and target; every range stays within them.
            unsafe {
                let (w, next_w) = packed.panels(s, (first + panel, wide), (k0, k), widened);
                let weights_in_turn = (packed, next_operands.map(|next| next.packed), main.packed);
                let product = Product {
                    a,
                    k,
                    panels: wide,
                    w,
                    next_w,
                    c: sums.add(panel * height * PANEL),
                    stride: PANEL,
                    next_c: height * PANEL,
                    accumulate,
                    prefetch: prefetch_after((panel, wide), (k0, k), panels, weights_in_turn),
                };
                if last && by_tiles {
                    let panels = ((first + panel) / each, wide / each);
                    multiply_and_apply(s, product, (epilogue, each, panels, target), scratch);
                } else {
                    product.run(s);
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
    if !by_tiles {
        // SAFETY: all sums are there.
        unsafe {
            epilogue.apply(
                s,
                (first / each, count / each, each),
                (sums, height * PANEL),
                target,
            )
        }
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
    product: Product,
    (epilogue, each, (first, panels), target): (Epilogue, usize, (usize, usize), Target),
    tile: *mut f32,
) {
    let rows = product.a.count;
    for (number, start) in (0..rows).step_by(S::ROWS).enumerate() {
        let count = S::ROWS.min(rows - start);
        // SAFETY: these rows are among those that the caller vouches for.
        unsafe {
            let (c, next_c) = match product.accumulate {
                Accumulate::Overwrite => (tile, count * PANEL),
                Accumulate::Continue | Accumulate::Add => (product.c.add(start * PANEL), product.next_c),
            };
            let part = Product {
                a: product.a.part(start, count),
                c,
                next_c,
                prefetch: product.prefetch.after(number),
                ..product
            };
            part.run(s);
            epilogue.apply(s, (first, panels, each), (c, next_c), target.part(start, count));
        }
    }
}

/// The first `k` numbers of each of `rows`, copied to `to`.
///
/// # Safety
/// The first `k` numbers of every row can be read, and there is room for all of them at `to`.
#[inline(always)]
unsafe fn side_by_side(rows: Rows, k: usize, to: *mut f32) -> Rows {
    for row in 0..rows.count {
        // SAFETY: vouched for by the caller.
        unsafe { std::ptr::copy_nonoverlapping(rows.first.add(row * rows.stride), to.add(row * k), k) }
    }
    Rows {
        first: to,
        stride: k,
        ..rows
    }
}
