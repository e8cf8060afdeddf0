//! Winograd's minimal filtering (Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural Networks").
//!
//! Three steps for a chunk of tiles. Each tile of input pixels, with the norm and SiLU of the layer before applied on
//! the way, becomes A x A numbers per channel (A = m + 2, with stride 2 A = 2 m + 1). Each of the A² positions is then a
//! matrix product of tiles by channels, from which the last step makes m x m output pixels.
//!
//! All transformed weights would take A²/9 times the memory of the weights, more than many machines have, and reading
//! them would take longer than computing them: so a task transforms the weights that it needs, two lines of positions at
//! a time, into its L2 cache. With a hundred tiles at hand this is about a twentieth of the work; with
//! a few it is most of it, and is done in the registers or in the L1 cache.

mod chunks;
mod input;
mod output;
mod products;
mod transform;
mod weights;

use self::chunks::Chunks;
use self::output::OutputTask;
use self::products::Products;
use self::transform::{Doubled, F2, F4, F6, Strided, Transform};
use super::algorithm::{FEWEST_OF_PAIRS, Factors, TRANSFORM, WinogradVariant};
use super::{Conv2d, Operands, Sizes};
use crate::buffer::{SharedPtr, with_scratch};
use crate::isa::Isa;
use crate::pairs::{PairUnit, ROWS};
use crate::pieces::{self, Cut};
use crate::pool::{for_each, threads};
use crate::simd::PANEL;

/// Input channels whose transformed weights are held at a time where there are many tiles: as many as the L2 cache
/// has room for, so that sums are rarely loaded and stored. The number changes a result only where a transform sums in
/// parts.
const CHANNELS: usize = 128;

/// The same with up to [`FEW_TILES`] tiles, where the transform itself is the work: as many as stay in the L1 cache.
/// Not where a transform sums in parts, whose length a batch must not change.
const FEW_CHANNELS: usize = 32;
const FEW_TILES: usize = 16;

/// Numbers of each channel in the most tiles that a task multiplies: 192 of 6x6. Their sums, 864 KiB, take most of the
/// L2 cache, and the more tiles there are, the more rarely weights are transformed.
const TASK: usize = 192 * 36;

/// Output panels of a task.
const PANELS: usize = 2;

/// Numbers between the positions of a buffer. Without them positions would lie a multiple of 4 KiB apart, in the same
/// few lines of the L1 cache, and the transforms, which go from position to position, would evict their own work.
const SKEW: usize = PANEL;

/// # Safety
/// The operands have the sizes that they state, and `out` has room for the result.
pub(super) unsafe fn run(
    (isa, factors): (Isa, Factors),
    variant: WinogradVariant,
    conv: &Conv2d,
    operands: Operands<'_>,
    out: *mut f32,
) {
    let rounds = factors == Factors::Rounded && variant == WinogradVariant::F2;
    let how = (isa, rounds);
    // SAFETY: passed on from the caller.
    unsafe {
        match variant {
            WinogradVariant::F2 => convolve::<F2, 4, 2>(how, conv, operands, out),
            WinogradVariant::F4 => convolve::<F4, 6, 4>(how, conv, operands, out),
            WinogradVariant::F6 => convolve::<F6, 8, 6>(how, conv, operands, out),
            WinogradVariant::Doubled => convolve::<Doubled, 6, 5>(how, conv, operands, out),
            WinogradVariant::Strided => convolve::<Strided, 9, 4>(how, conv, operands, out),
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
    (isa, rounds): (Isa, bool),
    conv: &Conv2d,
    operands: Operands<'_>,
    out: *mut f32,
) {
    let tiling = Tiling::new(operands.sizes, M, T::PHASES);
    // By the image and not by the batch, whose size must not change a result.
    let enough = tiling.down * tiling.across >= FEWEST_OF_PAIRS;
    let pairs = isa.pairs().filter(|_| isa.splits() && enough);
    let few = tiling.count() <= FEW_TILES && !T::IN_PARTS && pairs.is_none();
    let block_channels = if few { FEW_CHANNELS } else { CHANNELS };
    let blocks = conv.inputs.div_ceil(block_channels);
    let per_tile = A * A * blocks * block_channels;
    let skew = A * A * blocks * SKEW;
    let chunks = Chunks::new(tiling.count(), (A * A, per_tile), isa.rows(), threads());
    let out = SharedPtr::new(out);
    let work = |chunk: usize| {
        let first = chunk * chunks.most;
        let chunk = Chunk {
            tiling,
            first,
            count: chunks.most.min(tiling.count() - first),
            block_channels,
            threads: chunks.threads,
            pairs,
            rounds,
        };
        // Split numbers take as much room as those of f32, rounded ones half of it, and whole tiles of them are read.
        let beyond = if pairs.is_some() { ROWS * block_channels } else { 0 };
        // Never read as a slice: beyond the channels that exist nothing is written.
        let mut transformed = Vec::<f32>::with_capacity(chunk.count * per_tile + 2 * skew + beyond);
        let transformed = transformed.as_mut_ptr();
        input::run::<T, A, M>(isa, conv.inputs, chunk, operands, transformed);
        multiply::<T, A, M>(isa, conv, chunk, operands, (transformed, out.get()));
    };
    // How tiles are cut into chunks does not change a result.
    if chunks.in_turn {
        (0..chunks.count).for_each(work);
    } else {
        for_each(chunks.count, work);
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
    /// How many threads work on it.
    threads: usize,
    /// What multiplies transformed tiles, where they become pairs.
    pairs: Option<PairUnit>,
    /// Whether they are rounded then, and not split.
    rounds: bool,
}

impl Chunk {
    /// Words from one position to the next, in each part of a tile if there are two.
    fn position(&self) -> usize {
        self.count * self.row() + SKEW
    }

    /// Words from one tile to the next.
    fn row(&self) -> usize {
        match self.pairs {
            None => self.block_channels,
            Some(_) => self.block_channels / 2,
        }
    }

    /// Words from the high parts to the low ones, where numbers are split, of `positions` positions in `blocks` blocks of channels.
    fn low(&self, positions: usize, blocks: usize) -> Option<usize> {
        let splits = self.pairs.is_some() && !self.rounds;
        splits.then(|| blocks * positions * self.position())
    }
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
    let phases = T::PHASES;
    let cut = Cut {
        most: TASK / (A * A),
        unit: isa.rows(),
        // The weights are transformed, and fetched, for every piece.
        overhead: TRANSFORM + TRANSFORM / 2,
    };
    let most = pieces::shared(chunk.threads, chunk.count, cut, groups * phases * phases);
    let (transformed, out) = (SharedPtr::new(transformed), SharedPtr::new(out));
    for_each(chunk.count.div_ceil(most) * groups * phases * phases, |task| {
        let (task, phase) = (task / phases / phases, (task / phases % phases, task % phases));
        let (tile, panel) = (task / groups * most, task % groups * PANELS);
        let tiles = most.min(chunk.count - tile);
        let panels = PANELS.min(panels - panel);
        let sizes = [
            A * A * (panels * tiles * PANEL + SKEW),
            PANELS * weights::LINES * T::DISTINCT * weights::position(chunk.block_channels),
            PANELS * weights::raw(chunk.block_channels),
            if chunk.pairs.is_some() {
                PANELS * chunk.block_channels * PANEL
            } else {
                0
            },
        ];
        with_scratch(sizes.iter().sum(), |scratch| {
            // SAFETY: the buffer has the size of its parts.
            let (u, raw) = unsafe { (scratch.add(sizes[0]), scratch.add(sizes[0] + sizes[1])) };
            let words = raw.wrapping_add(sizes[2]);
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
                words,
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
