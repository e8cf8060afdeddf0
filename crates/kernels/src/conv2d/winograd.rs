//! Winograd's minimal filtering (Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural Networks").
//!
//! Three steps for a chunk of tiles. Each tile of input pixels, with the norm and SiLU of the layer before applied on
//! the way, becomes A x A numbers per channel (A = m + 2, with stride 2 A = 2 m + 1). Each of the A² positions is then a
//! matrix product of tiles by channels, from which the last step makes m x m output pixels.
//!
//! The transformed weights would take A²/9 times the memory of the weights, more than many machines have, and reading
//! them would take longer than making them: so a task transforms the few weights that it is about to use, two lines of
//! positions at a time, into its second cache. With a hundred tiles at hand this is about a twentieth of the work; with
//! a few it is most of it, and is done in the registers or in the first cache.

mod input;
mod output;
mod products;
mod transform;
mod weights;

use self::output::OutputTask;
use self::products::Products;
use self::transform::{Doubled, F2, F4, F6, Strided, Transform};
use super::plan::Algorithm;
use super::{Conv2d, Operands, Sizes};
use crate::buffer::{Shared, with_scratch};
use crate::isa::Isa;
use crate::pieces;
use crate::pool::for_each;
use crate::simd::PANEL;

/// Input channels whose transformed weights are held at a time where there are many tiles: as many as the second cache
/// has room for, so that sums are rarely fetched and put back. The number changes a result only where a transform sums in parts.
const CHANNELS: usize = 128;

/// The same with up to [`FEW_TILES`] tiles, where the transform itself is the work: as many as stay in the first cache.
/// Not where a transform sums in parts, whose length a batch must not change.
const FEW_CHANNELS: usize = 32;
const FEW_TILES: usize = 16;

/// Numbers of each channel in the most tiles that a task multiplies: 192 of 6x6. Their sums, 864 KiB, take most of the
/// second cache, and the more tiles there are, the more rarely weights are transformed.
const TASK: usize = 192 * 36;

/// Output panels of a task.
const PANELS: usize = 2;

/// Numbers between the positions of a buffer. Without them positions would lie a multiple of 4 KiB apart, in the same
/// few lines of the first cache, and the transforms, which go from position to position, would evict their own work.
const SKEW: usize = PANEL;

/// Numbers of transformed input that are held at a time for each thread: 4.5 MiB, to stay in the last cache until all
/// outputs have been multiplied. How tiles are cut into chunks does not change a result.
const CHUNK: usize = 9 << 17;

/// Numbers of each channel in a chunk even where they need more than that, 128 tiles of 6x6: with fewer the weights would
/// be transformed too often.
const FEWEST: usize = 128 * 36;

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
            Algorithm::F6 => convolve::<F6, 8, 6>(isa, conv, operands, out),
            Algorithm::Doubled => convolve::<Doubled, 6, 5>(isa, conv, operands, out),
            Algorithm::Strided => convolve::<Strided, 9, 4>(isa, conv, operands, out),
        }
    }
}

/// Row of the batch, line and column of a tile.
type Place = (usize, usize, usize);

/// Tiles of all rows of a batch, numbered row by row, line by line.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    sizes: Sizes,
    /// The results of a phase, down and across.
    results: (usize, usize),
    down: usize,
    across: usize,
}

impl Tiling {
    /// Tiles of m x m results in each of `phases` x `phases` phases. A tile's results of a later phase begin one pixel
    /// before those of the first, so there is one more to cover.
    fn new(sizes: Sizes, m: usize, phases: usize) -> Self {
        let results = (sizes.output.0 / phases, sizes.output.1 / phases);
        Self {
            sizes,
            results,
            down: (results.0 + phases - 1).div_ceil(m),
            across: (results.1 + phases - 1).div_ceil(m),
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
    let tiling = Tiling::new(operands.sizes, M, T::PHASES);
    let few = tiling.count() <= FEW_TILES && !T::IN_PARTS;
    let block_channels = if few { FEW_CHANNELS } else { CHANNELS };
    let blocks = conv.inputs.div_ceil(block_channels);
    let per_tile = A * A * blocks * block_channels;
    let skew = A * A * blocks * SKEW;
    let own = CHUNK / per_tile;
    let fewest = FEWEST / (A * A);
    let limit = if own < fewest {
        own * rayon::current_num_threads()
    } else {
        own
    };
    let most = pieces::even(tiling.count(), limit.clamp(fewest, TASK / (A * A)), isa.rows());
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
    if own < fewest {
        // One for all threads, as the last cache has no room for one for each.
        chunks.for_each(work);
    } else {
        // Each thread works on one of its own from end to end and waits for nobody between the steps.
        for_each(chunks.len(), work);
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
    let most = pieces::even(chunk.count, TASK / (A * A), isa.rows());
    let (transformed, out) = (Shared::new(transformed), Shared::new(out));
    let phases = T::PHASES;
    for_each(chunk.count.div_ceil(most) * groups * phases * phases, |task| {
        let (task, phase) = (task / phases / phases, (task / phases % phases, task % phases));
        let (tile, panel) = (task / groups * most, task % groups * PANELS);
        let tiles = most.min(chunk.count - tile);
        let panels = PANELS.min(panels - panel);
        let sizes = [
            A * A * (panels * tiles * PANEL + SKEW),
            PANELS * weights::LINES * T::DISTINCT * weights::position(chunk.block_channels),
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
