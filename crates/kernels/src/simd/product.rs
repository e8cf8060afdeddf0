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

/// Memory that is asked for while something else is multiplied, so that it is at hand when its turn comes: a place for
/// each step of the inner dimension. Any address will do, as nothing is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub(crate) first: *const u8,
    /// Bytes from one step to the next; 0 asks for nothing new.
    pub(crate) step: usize,
    /// Bytes from where one tile asks to where the next one does.
    pub(crate) next: usize,
    /// How many tiles ask.
    pub(crate) tiles: usize,
}

impl Ahead {
    pub(crate) const NOTHING: Self = Self {
        first: std::ptr::null(),
        step: 0,
        next: 0,
        tiles: 0,
    };

    /// What is left after the first `tiles` tiles.
    #[inline(always)]
    pub(crate) fn after(self, tiles: usize) -> Self {
        Self {
            first: self.first.wrapping_add(tiles * self.next),
            tiles: self.tiles.saturating_sub(tiles),
            ..self
        }
    }

    /// For each tile of the first `k` numbers of `rows` the rows of the tile after it.
    #[inline(always)]
    pub(crate) fn rows<S: Simd>(rows: Rows, k: usize) -> Self {
        let tile = S::ROWS * rows.stride;
        Self::left(rows.first.wrapping_add(tile), tile / k, tile)
    }

    /// Part of a left operand: `step` numbers for each step from `first` on, for the tile after it `next` numbers further.
    ///
    /// Where such rows come from the second cache or from further away, the processor does not ask for them early enough by
    /// itself.
    #[inline(always)]
    pub(crate) fn left(first: *const f32, step: usize, next: usize) -> Self {
        Self {
            first: first.cast(),
            step: step * size_of::<f32>(),
            next: next * size_of::<f32>(),
            tiles: usize::MAX,
        }
    }
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
