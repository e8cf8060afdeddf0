//! A matrix product of any size, cut into the tiles that an instruction set multiplies at once.

use super::Simd;

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

/// Weights that are asked for while others are multiplied, so that they come from memory in the meantime: as many rows of
/// as many panels as those have. Any address will do, as nothing is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub(crate) first: *const u8,
    /// Bytes from one panel to the next.
    pub(crate) next: usize,
    /// Bytes from one row of a panel to the next; 0 asks for nothing new.
    pub(crate) row: usize,
}

impl Ahead {
    pub(crate) const NOTHING: Self = Self {
        first: std::ptr::null(),
        next: 0,
        row: 0,
    };
}

/// What becomes of the sums that C holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// They are overwritten.
    Overwritten,
    /// The new terms are added to them one after the other, as if there had been one product.
    Continued,
    /// The new sum is added to them as a whole. Rounding errors grow with the length of a sum, so long sums lose less in
    /// parts.
    Added,
}

impl Before {
    /// For a part of a product that begins at `start` of the inner dimension.
    pub(crate) fn part(start: usize) -> Self {
        if start == 0 {
            Self::Overwritten
        } else {
            Self::Continued
        }
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
    pub(crate) before: Before,
    pub(crate) ahead: Ahead,
}

impl Product {
    /// # Safety
    /// The pointers are valid for the sizes that are stated.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(self, s: S) {
        let whole = self.a.count / S::ROWS * S::ROWS;
        let rest = self.a.count - whole;
        let mut panel = 0;
        while panel < self.panels {
            let panels = S::PANELS.min(self.panels - panel);
            // Whole tiles, then one of the rows that are left.
            for (start, count, rows) in [(0, whole, S::ROWS), (whole, rest, rest)] {
                if count == 0 {
                    continue;
                }
                // SAFETY: these rows and panels are among those that the caller vouches for.
                unsafe {
                    let part = Self {
                        a: self.a.part(start, count),
                        panels,
                        w: self.w.add(panel * self.next_w),
                        c: self.c.add(panel * self.next_c + start * self.stride),
                        ..self
                    };
                    s.tiles(part, rows);
                }
            }
            panel += panels;
        }
    }
}
