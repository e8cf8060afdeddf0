//! A matrix product of any size, cut into the tiles that an instruction set multiplies at once.

use super::{MAX_ROWS, Simd, Tile};

/// Rows of the left operand, `stride` numbers apart, each of numbers that lie `step` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) first: *const f32,
    pub(crate) stride: usize,
    pub(crate) step: usize,
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

/// C (+)= A · W for rows of A and packed panels of W.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) a: Rows,
    /// Length of the inner dimension.
    pub(crate) k: usize,
    pub(crate) panels: usize,
    /// k x 16 numbers for each panel, `next_w` from one panel to the next.
    pub(crate) w: *const f32,
    pub(crate) next_w: usize,
    /// Rows of 16 numbers, `stride` apart, for each panel, `next_c` from one panel to the next.
    pub(crate) c: *mut f32,
    pub(crate) stride: usize,
    pub(crate) next_c: usize,
    /// Whether the product is added to what C holds.
    pub(crate) accumulate: bool,
}

impl Product {
    /// # Safety
    /// The pointers are valid for the sizes that are stated.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(self, s: S) {
        let mut panel = 0;
        while panel < self.panels {
            let panels = S::PANELS.min(self.panels - panel);
            let mut row = 0;
            while row < self.a.count {
                let rows = S::ROWS.min(self.a.count - row);
                let mut a = [self.a.first; MAX_ROWS];
                // SAFETY: these rows and panels are among those that the caller vouches for.
                unsafe {
                    for (i, a) in a.iter_mut().enumerate().take(rows) {
                        *a = self.a.first.add((row + i) * self.a.stride);
                    }
                    s.tile(Tile {
                        a: &a,
                        step: self.a.step,
                        rows,
                        k: self.k,
                        panels,
                        w: self.w.add(panel * self.next_w),
                        next_w: self.next_w,
                        c: self.c.add(panel * self.next_c + row * self.stride),
                        stride: self.stride,
                        next_c: self.next_c,
                        accumulate: self.accumulate,
                    });
                }
                row += rows;
            }
            panel += panels;
        }
    }
}
