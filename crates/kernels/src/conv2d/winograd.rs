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
use crate::simd::{Kernel, PANEL, Product, Rows, Simd};

/// Input channels whose transformed weights are held at a time.
pub(super) const CHANNELS: usize = 128;

/// The most tiles that a task multiplies: their sums, 864 KiB, take most of the second cache, and the more tiles there
/// are, the more rarely weights are transformed.
const TILES: usize = 192;

/// Output panels of a task.
const PANELS: usize = 2;

/// Numbers between the positions of a buffer. Without them positions would lie a multiple of 4 KiB apart, in the same
/// few lines of the first cache, and the transforms, which go from position to position, would evict their own work.
const SKEW: usize = PANEL;

/// Numbers of transformed input held at a time for each thread: 4 MiB, to stay in the last cache until all outputs have
/// been multiplied. How tiles are cut into chunks does not change a result.
const CHUNK: usize = 1 << 20;

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
    let blocks = conv.inputs.div_ceil(CHANNELS);
    let per_tile = A * A * blocks * CHANNELS;
    let skew = A * A * blocks * SKEW;
    let most = (CHUNK * rayon::current_num_threads() / per_tile).next_multiple_of(TILES);
    let most = most.min(tiling.count());
    // Never read as a slice: beyond the channels that exist nothing is written.
    let mut transformed = Vec::<f32>::with_capacity(most * per_tile + skew);
    let transformed = transformed.as_mut_ptr();
    for first in (0..tiling.count()).step_by(most.max(1)) {
        let count = most.min(tiling.count() - first);
        let chunk = Chunk { tiling, first, count };
        input::run::<T, A, M>(isa, conv.inputs, chunk, operands, transformed);
        multiply::<T, A, M>(isa, conv, chunk, operands, (transformed, out));
    }
}

/// The tiles that are in flight.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    tiling: Tiling,
    first: usize,
    count: usize,
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
                PANELS * weights::LINES * A * weights::POSITION,
                PANELS * weights::RAW,
            ];
            with_scratch(sizes.iter().sum(), |scratch| {
                // SAFETY: the buffer has the size of its parts.
                let (u, raw) = unsafe { (scratch.add(sizes[0]), scratch.add(sizes[0] + sizes[1])) };
                isa.run(Products::<T, A, M> {
                    conv,
                    transformed: transformed.get(),
                    chunk_tiles: chunk.count,
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
    /// \[block of channels\]\[position\]\[tile\]\[CHANNELS\]
    transformed: *const f32,
    chunk_tiles: usize,
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
        let (first_tile, tiles) = self.tiles;
        let (first_panel, panels) = self.panels;
        for (block, start) in (0..inputs).step_by(CHANNELS).enumerate() {
            let channels = CHANNELS.min(inputs - start);
            // SAFETY: tiles, panels and channels are within the tensors, and the buffers were made for them.
            unsafe {
                let (taps, next_taps) =
                    self.conv
                        .packed
                        .panels(s, (first_panel, panels), (9 * start, 9 * channels), self.raw);
                for line in (0..A).step_by(weights::LINES) {
                    for panel in 0..panels {
                        let u = self.u.add(panel * weights::LINES * A * weights::POSITION);
                        let taps = taps.add(panel * next_taps);
                        weights::transform::<S, T, A, M>(s, taps, channels, (line, self.phase), u);
                    }
                    for position in line * A..(line + weights::LINES) * A {
                        self.prefetch(s, start + CHANNELS, (position, A * A));
                        let next = self.chunk_tiles * CHANNELS + SKEW;
                        let v = (block * A * A + position) * next + first_tile * CHANNELS;
                        let product = Product {
                            a: Rows {
                                first: self.transformed.add(v),
                                stride: CHANNELS,
                                step: 1,
                                count: tiles,
                            },
                            k: channels,
                            panels,
                            w: self.u.add((position - line * A) * weights::POSITION),
                            next_w: weights::LINES * A * weights::POSITION,
                            c: self.sums.add(position * (panels * tiles * PANEL + SKEW)),
                            stride: PANEL,
                            next_c: tiles * PANEL,
                            accumulate: block > 0,
                        };
                        product.run(s);
                    }
                }
            }
        }
    }
}

impl<T, const A: usize, const M: usize> Products<'_, T, A, M> {
    /// Asks for the weights that are transformed next: those of channel `start` and on, or where there are no more
    /// channels, those that the next task begins with.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, start: usize, part: (usize, usize)) {
        let (first, panels) = self.panels;
        let (first, start) = if start < self.conv.inputs {
            (first, start)
        } else {
            (first + panels, 0)
        };
        for panel in first..first + panels {
            self.conv
                .packed
                .prefetch(s, panel, (9 * start, 9 * CHANNELS), part);
        }
    }
}
