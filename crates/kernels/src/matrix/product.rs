//! A block of rows times a group of packed panels, into a buffer that stays in the caches.

use crate::packed::Packed;
use crate::simd::{MAX_ROWS, PANEL, Simd, Tile};

/// How much of the inner dimension is taken at a time: a panel of it, 20 KiB, stays in the first cache beside the rows.
/// The sums run on from block to block, so the value does not change a result.
pub(crate) const DEPTH: usize = 320;

/// Room for the widened panels of a step.
pub(crate) const WIDENED: usize = 2 * DEPTH * PANEL;

/// Rows of the left operand, `stride` numbers apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) first: *const f32,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl Rows {
    /// `count` rows from row `start` on.
    ///
    /// # Safety
    /// They exist.
    pub(crate) unsafe fn part(self, start: usize, count: usize) -> Self {
        // SAFETY: vouched for by the caller.
        let first = unsafe { self.first.add(start * self.stride) };
        Self { first, count, ..self }
    }
}

/// `rows` · panels `first_panel..first_panel + panels`, to `c` as \[panel\]\[row\]\[16\]. `widened` has room for
/// [`WIDENED`] numbers.
///
/// # Safety
/// All rows can be read to the packed depth, the panels exist, and both buffers are large enough.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd>(
    s: S,
    rows: Rows,
    (packed, first_panel, panels): (&Packed, usize, usize),
    c: *mut f32,
    widened: *mut f32,
) {
    let depth = packed.depth();
    let mut k0 = 0;
    while k0 < depth {
        let k = DEPTH.min(depth - k0);
        let mut panel = 0;
        while panel < panels {
            let wide = S::PANELS.min(panels - panel);
            // SAFETY: the caller vouches for panels, rows and buffers; every range stays within them.
            unsafe {
                let (w, next_w) = packed.panels(s, (first_panel + panel, wide), (k0, k), widened);
                let c = c.add(panel * rows.count * PANEL);
                let mut row = 0;
                while row < rows.count {
                    let count = S::ROWS.min(rows.count - row);
                    let mut a = [rows.first; MAX_ROWS];
                    for (i, a) in a.iter_mut().enumerate().take(count) {
                        *a = rows.first.add((row + i) * rows.stride + k0);
                    }
                    s.tile(Tile {
                        a: &a,
                        rows: count,
                        k,
                        panels: wide,
                        w,
                        next_w,
                        c: c.add(row * PANEL),
                        stride: PANEL,
                        next_c: rows.count * PANEL,
                        accumulate: k0 > 0,
                    });
                    row += count;
                }
            }
            panel += wide;
        }
        k0 += k;
    }
}
