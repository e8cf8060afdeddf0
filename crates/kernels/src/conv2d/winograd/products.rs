//! The matrix products between the transforms: tiles by channels, times weights that are transformed on the way.

use super::transform::Transform;
use super::{Chunk, FEW_CHANNELS, SKEW, weights};
use crate::conv2d::Conv2d;
use crate::pairs::{PairProduct, PairUnit, PairWork, Parts, STEP, interleave};
use crate::simd::{Accumulate, Kernel, PANEL, Prefetch, Product, Rows, Simd};

/// The A² matrix products of some tiles and some output panels.
pub(super) struct Products<'a, T, const A: usize, const M: usize> {
    pub(super) conv: &'a Conv2d,
    /// \[block of channels\]\[position\]\[tile\]\[channel\]
    pub(super) transformed: *const f32,
    pub(super) chunk: Chunk,
    pub(super) tiles: (usize, usize),
    pub(super) panels: (usize, usize),
    /// Down and across.
    pub(super) phase: (usize, usize),
    /// \[position\]\[panel\]\[tile\]\[16\]
    pub(super) sums: *mut f32,
    pub(super) u: *mut f32,
    pub(super) raw: *mut f32,
    /// Where weights become pairs: \[panel\]\[part\]\[pair\]\[16\]
    pub(super) words: *mut f32,
    pub(super) transform: std::marker::PhantomData<T>,
}

impl<T: Transform<A, M>, const A: usize, const M: usize> Kernel for Products<'_, T, A, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.conv.inputs;
        let ((_, tiles), (first_panel, panels)) = (self.tiles, self.panels);
        let block_channels = self.chunk.block_channels;
        let work = self.chunk.pairs.map(PairUnit::begin);
        for (block, start) in (0..inputs).step_by(block_channels).enumerate() {
            let channels = block_channels.min(inputs - start);
            // SAFETY: tiles, panels and channels are within the tensors, and the buffers were made for them.
            unsafe {
                let (taps, next_taps) =
                    self.conv
                        .packed
                        .panels(s, (first_panel, panels), (9 * start, 9 * channels), self.raw);
                let weights = (taps, next_taps);
                match tiles {
                    _ if block_channels != FEW_CHANNELS => {
                        self.in_memory(s, weights, (block, channels), work.as_ref());
                    }
                    1 if fits::<S>(A) => self.in_registers::<S, 1>(s, weights, (block, channels)),
                    2 if fits::<S>(2 * A) => self.in_registers::<S, 2>(s, weights, (block, channels)),
                    3 if fits::<S>(3 * A) => self.in_registers::<S, 3>(s, weights, (block, channels)),
                    4 if fits::<S>(4 * A) => self.in_registers::<S, 4>(s, weights, (block, channels)),
                    _ => self.in_memory(s, weights, (block, channels), None),
                }
            }
        }
    }
}

/// Whether a full tile of the matrix kernel has as many sums as this.
#[inline(always)]
fn fits<S: Simd>(sums: usize) -> bool {
    sums <= S::ROWS * S::PANELS * PANEL / S::LANES
}

impl<T: Transform<A, M>, const A: usize, const M: usize> Products<'_, T, A, M> {
    /// The products of a block of channels, with weights that are transformed into memory first.
    ///
    /// # Safety
    /// `taps`, with the distance from panel to panel, are those of the block's channels, and the buffers have the sizes
    /// that they need.
    #[inline(always)]
    unsafe fn in_memory<S: Simd>(
        &self,
        s: S,
        (taps, next_taps): (*const f32, usize),
        (block, channels): (usize, usize),
        work: Option<&PairWork>,
    ) {
        let ((_, tiles), (_, panels)) = (self.tiles, self.panels);
        let next_u = weights::position(self.chunk.block_channels);
        for line in (0..T::DISTINCT).step_by(weights::LINES) {
            let last = line + weights::LINES == T::DISTINCT;
            let end = if last { A } else { line + weights::LINES };
            // SAFETY: vouched for by the caller.
            unsafe {
                for panel in 0..panels {
                    let u = self.u.add(panel * weights::LINES * T::DISTINCT * next_u);
                    let taps = taps.add(panel * next_taps);
                    let to = (u, next_u);
                    // One arm for each pair, so that each is compiled to the operations of its own points.
                    match line / 2 {
                        0 => weights::transform::<S, T, A, M>(s, taps, channels, (0, self.phase), to),
                        1 => weights::transform::<S, T, A, M>(s, taps, channels, (1, self.phase), to),
                        2 => weights::transform::<S, T, A, M>(s, taps, channels, (2, self.phase), to),
                        _ => weights::transform::<S, T, A, M>(s, taps, channels, (3, self.phase), to),
                    }
                }
                for position in line * A..end * A {
                    self.prefetch(s, block, (position, A * A));
                    let number = weights::number::<T, A, M>(position, line);
                    let a = Rows {
                        first: self.transformed(block, position),
                        stride: self.chunk.row(),
                        step: 1,
                        count: tiles,
                    };
                    let product = Product {
                        a,
                        k: channels,
                        panels,
                        w: self.u.add(number * next_u),
                        next_w: weights::LINES * T::DISTINCT * next_u,
                        c: self.sums(position, 0),
                        stride: PANEL,
                        next_c: tiles * PANEL,
                        accumulate: match block {
                            0 => Accumulate::Overwrite,
                            _ if T::IN_PARTS => Accumulate::Add,
                            _ => Accumulate::Continue,
                        },
                        prefetch: Prefetch::rows::<S>(a, channels),
                    };
                    match work {
                        None => product.run(s),
                        Some(work) => self.multiply_pairs(s, work, product),
                    }
                }
            }
        }
    }

    /// `product` of tiles that are pairs, by weights that are split or rounded first as they are.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn multiply_pairs<S: Simd>(&self, s: S, work: &PairWork, product: Product) {
        let channels = product.k;
        let padded = channels.next_multiple_of(STEP);
        let (part, next_w) = (padded / 2 * PANEL, padded * PANEL);
        let blocks = self.conv.inputs.div_ceil(self.chunk.block_channels);
        let low = self.chunk.low(A * A, blocks);
        // SAFETY: vouched for by the caller.
        unsafe {
            for panel in 0..product.panels {
                let to = self.words.add(panel * next_w);
                let parts = Parts {
                    high: to,
                    low: low.map(|_| to.add(part)),
                };
                let from = product.w.add(panel * product.next_w);
                interleave(s, work.rounding(), from, (channels, padded), parts);
            }
            let low = low.map(|low| (product.a.first.add(low), self.words.add(part).cast_const()));
            let product = Product {
                k: padded / 2,
                w: self.words,
                next_w,
                prefetch: Prefetch::NONE,
                ..product
            };
            PairProduct { product, low }.run(s, work);
        }
    }

    /// The same for `R` tiles, so few that transformed weights are not worth storing: they are used in the registers in
    /// which they were computed, a line of positions at a time.
    ///
    /// # Safety
    /// As above, and there are `R` tiles, in blocks of [`FEW_CHANNELS`].
    #[inline(always)]
    unsafe fn in_registers<S: Simd, const R: usize>(
        &self,
        s: S,
        (taps, next_taps): (*const f32, usize),
        (block, channels): (usize, usize),
    ) {
        for number in 0..self.panels.1 * A {
            let (panel, line) = (number / A, number % A);
            for position in line * A..(line + 1) * A {
                self.prefetch(s, block, (panel * A * A + position, self.panels.1 * A * A));
            }
            let place = (block, channels, panel, line);
            // SAFETY: vouched for by the caller. Written out, so that each line has the operations of its points only.
            unsafe {
                let taps = taps.add(panel * next_taps);
                const { assert!(T::DISTINCT <= 6 || T::IN_PARTS) };
                match line.min(T::DISTINCT - 1) {
                    0 => self.line_in_registers::<S, R>(s, taps, place, 0),
                    1 => self.line_in_registers::<S, R>(s, taps, place, 1),
                    2 => self.line_in_registers::<S, R>(s, taps, place, 2),
                    3 => self.line_in_registers::<S, R>(s, taps, place, 3),
                    4 => self.line_in_registers::<S, R>(s, taps, place, 4),
                    _ => self.line_in_registers::<S, R>(s, taps, place, 5),
                }
            }
        }
    }

    /// One line of positions of one panel, by line `weights` of the transformed weights.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn line_in_registers<S: Simd, const R: usize>(
        &self,
        s: S,
        taps: *const f32,
        (block, channels, panel, line): (usize, usize, usize, usize),
        weights: usize,
    ) {
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                let taps = taps.add(lane);
                let mut sums = [[s.splat(0.0); R]; A];
                if block > 0 {
                    for (j, sums) in sums.iter_mut().enumerate() {
                        for (tile, sum) in sums.iter_mut().enumerate() {
                            *sum = s.load(self.sums(line * A + j, panel * R + tile).add(lane));
                        }
                    }
                }
                let mut tiles = [std::ptr::null(); A];
                for (j, tile) in tiles.iter_mut().enumerate() {
                    *tile = self.transformed(block, line * A + j);
                }
                for channel in 0..channels {
                    let taps = taps.add(channel * 9 * PANEL);
                    let u = weights::line::<S, T, A, M>(s, taps, (weights, self.phase));
                    for ((sums, u), tiles) in sums.iter_mut().zip(u).zip(tiles) {
                        for (tile, sum) in sums.iter_mut().enumerate() {
                            *sum = s.fma(s.splat(*tiles.add(tile * FEW_CHANNELS + channel)), u, *sum);
                        }
                    }
                }
                for (j, sums) in sums.into_iter().enumerate() {
                    for (tile, sum) in sums.into_iter().enumerate() {
                        s.store(self.sums(line * A + j, panel * R + tile).add(lane), sum);
                    }
                }
            }
        }
    }

    /// The first of the task's tiles at a position.
    #[inline(always)]
    fn transformed(&self, block: usize, position: usize) -> *const f32 {
        let (row, next) = (self.chunk.row(), self.chunk.position());
        self.transformed
            .wrapping_add((block * A * A + position) * next + self.tiles.0 * row)
    }

    /// Sum `number`, of all tiles of all panels, at a position.
    #[inline(always)]
    fn sums(&self, position: usize, number: usize) -> *mut f32 {
        let next = self.panels.1 * self.tiles.1 * PANEL + SKEW;
        self.sums.wrapping_add(position * next + number * PANEL)
    }

    /// Prefetches the weights that are transformed after those of `block`: those of the next block, or after the last one
    /// those of the next task's first.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, block: usize, part: (usize, usize)) {
        let (first, panels) = self.panels;
        let start = (block + 1) * self.chunk.block_channels;
        let (first, start) = if start < self.conv.inputs {
            (first, start)
        } else {
            (first + panels, 0)
        };
        for panel in first..first + panels {
            self.conv
                .packed
                .prefetch(s, panel, (9 * start, 9 * self.chunk.block_channels), part);
        }
    }
}
