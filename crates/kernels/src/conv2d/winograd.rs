//! Winograd's minimal filtering (Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural Networks").
//!
//! Three steps for a chunk of tiles. Each tile of input pixels, with the norm and SiLU of the layer before applied on
//! the way, becomes A x A numbers per channel (A = m + 2). Each of the A² positions is then a matrix product of tiles by
//! channels, from which the last step makes m x m output pixels.
//!
//! The transformed weights would take A²/9 times the memory of the weights, more than many machines have, and reading
//! them would take longer than making them: so a task transforms the few weights that it is about to use, two lines of
//! positions at a time, into its second cache. With a hundred tiles at hand this is about a twentieth of the work.

mod input;
mod output;
mod transform;
mod weights;

use rayon::prelude::*;

use self::output::OutputTask;
use self::transform::{Doubled, F2, F4, Transform};
use super::plan::Algorithm;
use super::{Conv2d, Operands, Sizes};
use crate::buffer::{Shared, with_scratch};
use crate::isa::Isa;
use crate::pieces;
use crate::simd::{Ahead, Kernel, PANEL, Product, Rows, Simd};

/// Input channels whose transformed weights are held at a time where there are many tiles: as many as the second cache
/// has room for, so that sums are rarely fetched and put back. The number does not change a result.
const CHANNELS: usize = 128;

/// The same with up to [`FEW_TILES`] tiles, where the transform itself is the work: as many as stay in the first cache.
const FEW_CHANNELS: usize = 32;
const FEW_TILES: usize = 16;

/// The most tiles that a task multiplies: their sums, 864 KiB, take most of the second cache, and the more tiles there
/// are, the more rarely weights are transformed.
const TILES: usize = 192;

/// Output panels of a task.
const PANELS: usize = 2;

/// Numbers between the positions of a buffer. Without them positions would lie a multiple of 4 KiB apart, in the same
/// few lines of the first cache, and the transforms, which go from position to position, would evict their own work.
const SKEW: usize = PANEL;

/// Numbers of transformed input that are held at a time for each thread: 4.5 MiB, to stay in the last cache until all
/// outputs have been multiplied. How tiles are cut into chunks does not change a result.
const CHUNK: usize = 9 << 17;

/// Tiles of a chunk even where they need more than that: with fewer the weights would be transformed too often.
const FEWEST_TILES: usize = 128;

/// # Safety
/// The operands have the sizes that they state, and `out` has room for the result.
pub(super) unsafe fn run(
    isa: Isa,
    algorithm: Algorithm,
    conv: &Conv2d,
    operands: Operands<'_>,
    out: *mut f32,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        match algorithm {
            Algorithm::F2 => convolve::<F2, 4, 2>(isa, conv, operands, out),
            Algorithm::F4 => convolve::<F4, 6, 4>(isa, conv, operands, out),
            Algorithm::Doubled => convolve::<Doubled, 6, 5>(isa, conv, operands, out),
        }
    }
}

/// Row of the batch, line and column of a tile.
type Place = (usize, usize, usize);

/// Tiles of all rows of a batch, numbered row by row, line by line.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    sizes: Sizes,
    down: usize,
    across: usize,
}

impl Tiling {
    /// Tiles of m x m results in each of `phases` x `phases` phases. A tile's results of a later phase begin one pixel
    /// before those of the first, so there is one more to cover.
    fn new(sizes: Sizes, m: usize, phases: usize) -> Self {
        Self {
            sizes,
            down: (sizes.input.0 + phases - 1).div_ceil(m),
            across: (sizes.input.1 + phases - 1).div_ceil(m),
        }
    }

    fn count(&self) -> usize {
        self.sizes.rows * self.down * self.across
    }

    fn place(&self, number: usize) -> Place {
        let line = number / self.across;
        (line / self.down, line % self.down, number % self.across)
    }
}

unsafe fn convolve<T: Transform<A, M>, const A: usize, const M: usize>(
    isa: Isa,
    conv: &Conv2d,
    operands: Operands<'_>,
    out: *mut f32,
) {
    let tiling = Tiling::new(operands.sizes, M, T::WEIGHTS.len());
    let few = tiling.count() <= FEW_TILES;
    let block_channels = if few { FEW_CHANNELS } else { CHANNELS };
    let blocks = conv.inputs.div_ceil(block_channels);
    let per_tile = A * A * blocks * block_channels;
    let skew = A * A * blocks * SKEW;
    let own = CHUNK / per_tile;
    let limit = if own < FEWEST_TILES { own * rayon::current_num_threads() } else { own };
    let most = pieces::even(tiling.count(), limit.clamp(FEWEST_TILES, TILES), isa.rows());
    let out = Shared::new(out);
    let work = |chunk: usize| {
        let first = chunk * most;
        let chunk = Chunk {
            tiling,
            first,
            count: most.min(tiling.count() - first),
            block_channels,
        };
        // Never read as a slice: beyond the channels that exist nothing is written.
        let mut transformed = Vec::<f32>::with_capacity(chunk.count * per_tile + skew);
        let transformed = transformed.as_mut_ptr();
        input::run::<T, A, M>(isa, conv.inputs, chunk, operands, transformed);
        multiply::<T, A, M>(isa, conv, chunk, operands, (transformed, out.get()));
    };
    let chunks = 0..tiling.count().div_ceil(most);
    if own < FEWEST_TILES {
        // One for all threads, as the last cache has no room for one for each.
        chunks.for_each(work);
    } else {
        // Each thread works on one of its own from end to end and waits for nobody between the steps.
        chunks.into_par_iter().for_each(work);
    }
}

/// The tiles that are in flight.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    tiling: Tiling,
    first: usize,
    count: usize,
    /// Input channels that lie side by side in the transformed tiles.
    block_channels: usize,
}

fn multiply<T: Transform<A, M>, const A: usize, const M: usize>(
    isa: Isa,
    conv: &Conv2d,
    chunk: Chunk,
    operands: Operands<'_>,
    (transformed, out): (*const f32, *mut f32),
) {
    let panels = conv.outputs.div_ceil(PANEL);
    let groups = panels.div_ceil(PANELS);
    let most = pieces::even(chunk.count, TILES, isa.rows());
    let (transformed, out) = (Shared::new(transformed), Shared::new(out));
    let phases = T::WEIGHTS.len();
    (0..chunk.count.div_ceil(most) * groups * phases * phases)
        .into_par_iter()
        .for_each(|task| {
            let (task, phase) = (task / phases / phases, (task / phases % phases, task % phases));
            let (tile, panel) = (task / groups * most, task % groups * PANELS);
            let tiles = most.min(chunk.count - tile);
            let panels = PANELS.min(panels - panel);
            let sizes = [
                A * A * (panels * tiles * PANEL + SKEW),
                PANELS * weights::LINES * A * weights::position(chunk.block_channels),
                PANELS * weights::raw(chunk.block_channels),
            ];
            with_scratch(sizes.iter().sum(), |scratch| {
                // SAFETY: the buffer has the size of its parts.
                let (u, raw) = unsafe { (scratch.add(sizes[0]), scratch.add(sizes[0] + sizes[1])) };
                isa.run(Products::<T, A, M> {
                    conv,
                    transformed: transformed.get(),
                    chunk,
                    tiles: (tile, tiles),
                    panels: (panel, panels),
                    phase,
                    sums: scratch,
                    u,
                    raw,
                    transform: std::marker::PhantomData,
                });
                isa.run(OutputTask::<T, A, M> {
                    conv,
                    operands,
                    tiling: chunk.tiling,
                    tiles: (chunk.first + tile, tiles),
                    panels: (panel, panels),
                    phase,
                    sums: scratch,
                    out: out.get(),
                    transform: std::marker::PhantomData,
                });
            });
        });
}

/// The A² matrix products of some tiles and some output panels.
struct Products<'a, T, const A: usize, const M: usize> {
    conv: &'a Conv2d,
    /// \[block of channels\]\[position\]\[tile\]\[channel\]
    transformed: *const f32,
    chunk: Chunk,
    tiles: (usize, usize),
    panels: (usize, usize),
    /// Down and across.
    phase: (usize, usize),
    /// \[position\]\[panel\]\[tile\]\[16\]
    sums: *mut f32,
    u: *mut f32,
    raw: *mut f32,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform<A, M>, const A: usize, const M: usize> Kernel for Products<'_, T, A, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.conv.inputs;
        let ((_, tiles), (first_panel, panels)) = (self.tiles, self.panels);
        let block_channels = self.chunk.block_channels;
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
                    _ if block_channels != FEW_CHANNELS => self.in_memory(s, weights, (block, channels)),
                    1 if fits::<S>(A) => self.in_registers::<S, 1>(s, weights, (block, channels)),
                    2 if fits::<S>(2 * A) => self.in_registers::<S, 2>(s, weights, (block, channels)),
                    3 if fits::<S>(3 * A) => self.in_registers::<S, 3>(s, weights, (block, channels)),
                    4 if fits::<S>(4 * A) => self.in_registers::<S, 4>(s, weights, (block, channels)),
                    _ => self.in_memory(s, weights, (block, channels)),
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
    ) {
        let ((_, tiles), (_, panels)) = (self.tiles, self.panels);
        let next_u = weights::position(self.chunk.block_channels);
        for line in (0..A).step_by(weights::LINES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                for panel in 0..panels {
                    let u = self.u.add(panel * weights::LINES * A * next_u);
                    let taps = taps.add(panel * next_taps);
                    weights::transform::<S, T, A, M>(s, taps, channels, (line, self.phase), (u, next_u));
                }
                for position in line * A..(line + weights::LINES) * A {
                    self.prefetch(s, block, (position, A * A));
                    let product = Product {
                        a: Rows {
                            first: self.transformed(block, position),
                            stride: self.chunk.block_channels,
                            step: 1,
                            count: tiles,
                        },
                        k: channels,
                        panels,
                        w: self.u.add((position - line * A) * next_u),
                        next_w: weights::LINES * A * next_u,
                        c: self.sums(position, 0),
                        stride: PANEL,
                        next_c: tiles * PANEL,
                        accumulate: block > 0,
                        ahead: Ahead::NOTHING,
                    };
                    product.run(s);
                }
            }
        }
    }

    /// The same for `R` tiles, so few that transformed weights are used only that often: they are used in the registers
    /// in which they arise, a line of positions at a time.
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
            for lane in (0..PANEL).step_by(S::LANES) {
                // SAFETY: vouched for by the caller.
                unsafe {
                    let taps = taps.add(panel * next_taps + lane);
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
                        let u = weights::line::<S, T, A, M>(
                            s,
                            taps.add(channel * 9 * PANEL),
                            (line, self.phase),
                        );
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
    }

    /// The first of the task's tiles at a position.
    #[inline(always)]
    fn transformed(&self, block: usize, position: usize) -> *const f32 {
        let row = self.chunk.block_channels;
        let next = self.chunk.count * row + SKEW;
        self.transformed
            .wrapping_add((block * A * A + position) * next + self.tiles.0 * row)
    }

    /// Sum `number`, of all tiles of all panels, at a position.
    #[inline(always)]
    fn sums(&self, position: usize, number: usize) -> *mut f32 {
        let next = self.panels.1 * self.tiles.1 * PANEL + SKEW;
        self.sums.wrapping_add(position * next + number * PANEL)
    }

    /// Asks for the weights that are transformed after those of `block`: those of the next one, or where there are no
    /// more channels, those that the next task begins with.
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
