//! A block of rows times a group of packed panels, finished tile by tile.

use super::{Finish, Target};
use crate::packed::Packed;
use crate::simd::{Before, PANEL, Product, Rows, Simd};

/// How much of the inner dimension is taken at a time: a panel of it, 20 KiB, stays in the first cache beside the rows.
/// The sums run on from block to block, so the value does not change a result.
pub(crate) const DEPTH: usize = 320;

/// Rows that lie a multiple of this many numbers apart, 4 KiB, meet in the same few lines of the caches and evict each
/// other before they have been used. They are copied first, which takes a twentieth of the time and saves up to a quarter.
const MEETING: usize = 1024;

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

/// Some packed panels, by which rows are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) packed: &'a Packed,
    pub(super) first: usize,
    pub(super) count: usize,
    /// How many of them make one panel of the result: two under GEGLU.
    pub(super) each: usize,
}

/// `rows` · `panels`, finished into `target`. `scratch` has [`room`] for them.
///
/// A tile is finished when its sums are complete, while they are in the first cache: the few lines of the result that it
/// has are on their way to memory while the next tile is multiplied. A whole block at once would wait for each of them.
///
/// # Safety
/// All rows can be read to the packed depth, the panels exist, and the target's rows are as many.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    s: S,
    rows: Rows,
    panels: Panels<'_>,
    (finish, target): (Finish, Target),
    scratch: *mut f32,
) {
    const { assert!(S::ROWS <= TILE_ROWS) };
    let Panels {
        packed,
        first,
        count,
        each,
    } = panels;
    // SAFETY: the scratch has room for these parts.
    let (widened, copies, sums) = unsafe {
        let copies = scratch.add(TILE + WIDENED);
        (scratch.add(TILE), copies, copies.add(rows.count * DEPTH))
    };
    // Whether hidden and gate come out of the same tile.
    let by_tiles = each <= S::PANELS;
    let depth = packed.depth();
    let mut k0 = 0;
    while k0 < depth {
        let k = DEPTH.min(depth - k0);
        let last = k0 + k == depth;
        // SAFETY: the rows have this part of the depth, and the scratch has room for it.
        let a = unsafe {
            let part = Rows {
                first: rows.first.add(k0),
                ..rows
            };
            if rows.stride.is_multiple_of(MEETING) {
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
                // The panels that follow, at the end of the group in the next part of the depth, at its end in the next
                // group.
                let (following, start) = match (panel + wide < count, last) {
                    (true, _) => (first + panel + wide, k0),
                    (false, false) => (first, k0 + k),
                    (false, true) => (first + count, 0),
                };
                let product = Product {
                    a,
                    k,
                    panels: wide,
                    w,
                    next_w,
                    c: sums.add(panel * rows.count * PANEL),
                    stride: PANEL,
                    next_c: rows.count * PANEL,
                    before: Before::part(k0),
                    ahead: packed.ahead((following, wide), start),
                };
                if last && by_tiles {
                    let panels = ((first + panel) / each, wide / each);
                    finished(s, product, (finish, each, panels, target), scratch);
                } else {
                    product.run(s);
                }
            }
            panel += wide;
        }
        k0 += k;
    }
    if !by_tiles {
        // SAFETY: all sums are there.
        unsafe {
            finish.block(
                s,
                (first / each, count / each, each),
                (sums, rows.count * PANEL),
                target,
            )
        }
    }
}

/// Runs the last part of a product tile by tile and finishes each. Sums that are not continued go to `tile`.
///
/// # Safety
/// As [`product`], for these panels of the result.
#[inline(always)]
unsafe fn finished<S: Simd>(
    s: S,
    product: Product,
    (finish, each, (first, panels), target): (Finish, usize, (usize, usize), Target),
    tile: *mut f32,
) {
    let rows = product.a.count;
    for (number, start) in (0..rows).step_by(S::ROWS).enumerate() {
        let count = S::ROWS.min(rows - start);
        // SAFETY: these rows are among those that the caller vouches for.
        unsafe {
            let (c, next_c) = match product.before {
                Before::Overwritten => (tile, count * PANEL),
                Before::Continued | Before::Added => (product.c.add(start * PANEL), product.next_c),
            };
            let part = Product {
                a: product.a.part(start, count),
                c,
                next_c,
                ahead: product.ahead.after(number),
                ..product
            };
            part.run(s);
            finish.block(s, (first, panels, each), (c, next_c), target.part(start, count));
        }
    }
}

/// The first `k` numbers of each of `rows`, copied to `to`.
///
/// # Safety
/// They exist one beside the other, and there is room for them.
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
