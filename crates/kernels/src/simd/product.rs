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

/// Memory that is prefetched while something else is multiplied: one address for each step of the inner dimension. Any
/// address is allowed, since a prefetch reads nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefetch {
    pub(crate) first: *const u8,
    /// Bytes from one step to the next; 0 prefetches the same line again.
    pub(crate) step: usize,
    /// Bytes from the first address of one tile to that of the next.
    pub(crate) next: usize,
    /// How many tiles prefetch.
    pub(crate) tiles: usize,
}

impl Prefetch {
    pub(crate) const NONE: Self = Self {
        first: std::ptr::null(),
        step: 0,
        next: 0,
        tiles: 0,
    };

    /// The prefetch of the tiles after the first `tiles`.
    #[inline(always)]
    pub(crate) fn after(self, tiles: usize) -> Self {
        Self {
            first: self.first.wrapping_add(tiles * self.next),
            tiles: self.tiles.saturating_sub(tiles),
            ..self
        }
    }

    /// For each tile, the first `k` numbers of the rows of the tile after it.
    #[inline(always)]
    pub(crate) fn rows<S: Simd>(rows: Rows, k: usize) -> Self {
        let tile = S::ROWS * rows.stride;
        Self::left_operand(rows.first.wrapping_add(tile), tile / k, tile)
    }

    /// Part of a left operand: `step` numbers for each step from `first` on, and `next` numbers further for the tile after.
    ///
    /// The processor's own prefetching is too late for such rows where they are not in the L1 cache.
    #[inline(always)]
    pub(crate) fn left_operand(first: *const f32, step: usize, next: usize) -> Self {
        Self {
            first: first.cast(),
            step: step * size_of::<f32>(),
            next: next * size_of::<f32>(),
            tiles: usize::MAX,
        }
    }
}

/// How new sums are stored where C holds sums already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulate {
    /// They are overwritten.
    Overwrite,
    /// The new terms are added to them one after the other, as if there had been one product.
    Continue,
    /// The new sum is added to them as a whole. Rounding errors grow with the length of a sum, so long sums lose less in
    /// parts.
    Add,
}

impl Accumulate {
    /// The way for the part of a product that begins at `start` of the inner dimension.
    pub(crate) fn part(start: usize) -> Self {
        if start == 0 {
            Self::Overwrite
        } else {
            Self::Continue
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
    pub(crate) accumulate: Accumulate,
    pub(crate) prefetch: Prefetch,
}

impl Product {
    /// # Safety
    /// The pointers are valid for the sizes that are stated.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(self, s: S) {
        // SAFETY: passed on from the caller.
        unsafe { self.run_by(NumberTiles(s)) }
    }

    /// By tiles of whichever kind.
    ///
    /// # Safety
    /// As above, in numbers of the tiles' kind.
    #[inline(always)]
    pub(crate) unsafe fn run_by<T: Tiles>(self, tiles: T) {
        let whole = self.a.count / T::ROWS * T::ROWS;
        let rest = self.a.count - whole;
        let mut panel = 0;
        while panel < self.panels {
            let panels = T::PANELS.min(self.panels - panel);
            // Whole tiles, then one of the rows that are left.
            for (start, count, rows) in [(0, whole, T::ROWS), (whole, rest, rest)] {
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
                    tiles.run(part, rows);
                }
            }
            panel += panels;
        }
    }
}

/// How a product is multiplied tile by tile.
pub(crate) trait Tiles: Copy {
    /// Rows of a full tile.
    const ROWS: usize;
    /// Panels of a full tile.
    const PANELS: usize;
    /// As [`Simd::tiles`].
    ///
    /// # Safety
    /// As there.
    unsafe fn run(self, product: Product, rows: usize);
}

/// Of f32.
#[derive(Clone, Copy)]
struct NumberTiles<S>(S);

impl<S: Simd> Tiles for NumberTiles<S> {
    const ROWS: usize = S::ROWS;
    const PANELS: usize = S::PANELS;

    #[inline(always)]
    unsafe fn run(self, product: Product, rows: usize) {
        // SAFETY: passed on from the caller.
        unsafe { self.0.tiles(product, rows) }
    }
}

/// Of words of two bfloat16 numbers, by the instructions of f32.
#[derive(Clone, Copy)]
pub(crate) struct PairTiles<S>(pub(crate) S);

impl<S: Simd> Tiles for PairTiles<S> {
    const ROWS: usize = S::ROWS;
    const PANELS: usize = S::PANELS;

    #[inline(always)]
    unsafe fn run(self, product: Product, rows: usize) {
        // SAFETY: passed on from the caller.
        unsafe { self.0.pair_tiles(product, rows) }
    }
}
