//! A block of rows times a group of packed panels, into a buffer that stays in the caches.

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

/// Numbers of scratch memory for a product of `rows` rows.
pub(crate) fn room(rows: usize) -> usize {
    WIDENED + rows * DEPTH
}

/// `rows` · panels `first_panel..first_panel + panels`, to `c` as \[panel\]\[row\]\[16\]. `scratch` has
/// [`room`] for the rows.
///
/// # Safety
/// All rows can be read to the packed depth, the panels exist, and both buffers are large enough.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd>(
    s: S,
    rows: Rows,
    (packed, first_panel, panels): (&Packed, usize, usize),
    c: *mut f32,
    scratch: *mut f32,
) {
    let depth = packed.depth();
    let mut k0 = 0;
    while k0 < depth {
        let k = DEPTH.min(depth - k0);
        // SAFETY: the rows have this part of the depth, and the scratch has room for it.
        let a = unsafe {
            let part = Rows {
                first: rows.first.add(k0),
                ..rows
            };
            if rows.stride.is_multiple_of(MEETING) {
                side_by_side(part, k, scratch.add(WIDENED))
            } else {
                part
            }
        };
        let mut panel = 0;
        while panel < panels {
            let wide = S::PANELS.min(panels - panel);
            // SAFETY: the caller vouches for panels, rows and buffers; every range stays within them.
            unsafe {
                let (w, next_w) = packed.panels(s, (first_panel + panel, wide), (k0, k), scratch);
                let c = c.add(panel * rows.count * PANEL);
                // The panels that follow, at the end of the group in the next part of the depth, at its end in the next
                // group.
                let (following, start) = match (panel + wide < panels, k0 + k < depth) {
                    (true, _) => (first_panel + panel + wide, k0),
                    (false, true) => (first_panel, k0 + k),
                    (false, false) => (first_panel + panels, 0),
                };
                let product = Product {
                    a,
                    k,
                    panels: wide,
                    w,
                    next_w,
                    c,
                    stride: PANEL,
                    next_c: rows.count * PANEL,
                    before: Before::part(k0),
                    ahead: packed.ahead((following, wide), start),
                };
                product.run(s);
            }
            panel += wide;
        }
        k0 += k;
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
