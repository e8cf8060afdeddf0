//! Bᵀ d B: tiles of the input, normalised and activated on the way, into \[block\]\[position\]\[tile\]\[channel\].

use std::mem::MaybeUninit;

use super::transform::Transform;
use super::{Chunk, Tiling};
use crate::buffer::{SharedPtr, with_scratch};
use crate::conv2d::Operands;
use crate::isa::Isa;
use crate::norm;
use crate::pairs::STEP;
use crate::pieces::{self, Cut};
use crate::pool::for_each;
use crate::simd::{Kernel, LINE, Simd};

/// The most neighbouring tiles of a task, whose shared pixels are normalised once; half as many with stride 2.
const RUN: usize = 16;

/// Transforms all tiles of `chunk` to `v`.
pub(super) fn run<T: Transform<A, M>, const A: usize, const M: usize>(
    isa: Isa,
    inputs: usize,
    chunk: Chunk,
    operands: Operands<'_>,
    v: *mut f32,
) {
    let Chunk {
        tiling,
        first,
        count,
        block_channels,
        threads,
        ..
    } = chunk;
    let blocks = inputs.div_ceil(block_channels);
    // Runs of tiles within a line of tiles.
    let cut = Cut {
        most: RUN / T::STRIDE,
        unit: 1,
        overhead: 1,
    };
    let others = count.div_ceil(tiling.across) * blocks;
    let most = pieces::shared(threads, tiling.across, cut, others);
    let mut runs = Vec::new();
    let mut tile = first;
    while tile < first + count {
        let left_in_line = tiling.across - tile % tiling.across;
        let tiles = most.min(left_in_line).min(first + count - tile);
        runs.push((tile, tiles));
        tile += tiles;
    }
    let v = SharedPtr::new(v);
    for_each(runs.len() * blocks, |task| {
        let (run, block) = (runs[task / blocks], task % blocks);
        with_scratch(A * columns::<T, A, M>(most) * block_channels, |strip| {
            isa.run(InputTask::<T, A, M> {
                tiling,
                operands,
                inputs,
                run,
                channels: (block * block_channels, block_channels),
                strip,
                to: v
                    .get()
                    .wrapping_add(block * A * A * chunk.position() + (run.0 - first) * chunk.row()),
                next: chunk.position(),
                row: chunk.row(),
                is_pairs: chunk.pairs.is_some(),
                low: chunk.low(A * A, blocks),
                transform: std::marker::PhantomData,
            });
        });
    });
}

/// Columns of pixels under `tiles` neighbouring tiles.
#[inline(always)]
fn columns<T: Transform<A, M>, const A: usize, const M: usize>(tiles: usize) -> usize {
    (tiles - 1) * M * T::STRIDE + A
}

/// How many numbers in advance a pixel is prefetched: 16 KiB. The processor's own prefetching does not keep up, because
/// every line of a strip begins at another place.
const AHEAD: usize = 4096;

/// A run of tiles of one block of channels.
pub(super) struct InputTask<'a, T, const A: usize, const M: usize> {
    tiling: Tiling,
    operands: Operands<'a>,
    inputs: usize,
    /// First tile and number of tiles.
    run: (usize, usize),
    /// The block's first channel, and how many it has room for.
    channels: (usize, usize),
    /// \[A lines\]\[columns\]\[channel\]
    strip: *mut f32,
    /// The run's first tile at position 0.
    to: *mut f32,
    /// From one position to the next.
    next: usize,
    /// From one tile to the next.
    row: usize,
    /// Whether numbers become pairs.
    is_pairs: bool,
    /// From the high parts to the low ones, where they are split.
    low: Option<usize>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform<A, M>, const A: usize, const M: usize> Kernel for InputTask<'_, T, A, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (start, room) = self.channels;
        let channels = room.min(self.inputs - start);
        // Lanes beyond the channels are filled with zeros.
        let unit = if self.is_pairs { STEP } else { S::LANES };
        let padded = channels.next_multiple_of(unit);
        let columns = columns::<T, A, M>(self.run.1);
        self.fill_strip(s, (start, channels, padded), columns);
        for tile in 0..self.run.1 {
            for lane in (0..padded).step_by(S::LANES) {
                // SAFETY: strip and target have room for the run's tiles and channels.
                unsafe {
                    let from = self.strip.add(tile * M * T::STRIDE * room + lane);
                    let to = self.to.add(tile * self.row);
                    let mut down = [[MaybeUninit::<S::V>::uninit(); A]; A];
                    for column in 0..A {
                        let mut d = [s.splat(0.0); A];
                        for (row, d) in d.iter_mut().enumerate() {
                            *d = s.load(from.add((row * columns + column) * room));
                        }
                        for (row, v) in down.iter_mut().zip(T::input(s, d)) {
                            row[column].write(v);
                        }
                    }
                    for (i, row) in down.iter().enumerate() {
                        let mut d = [s.splat(0.0); A];
                        for (d, row) in d.iter_mut().zip(row) {
                            *d = row.assume_init();
                        }
                        for (j, v) in T::input(s, d).into_iter().enumerate() {
                            let to = to.add((i * A + j) * self.next);
                            if !self.is_pairs {
                                s.store(to.add(lane), v);
                                continue;
                            }
                            let high = s.round_bf16(v);
                            s.store_bf16(to.cast::<u16>().add(lane), high);
                            if let Some(low) = self.low {
                                let rest = s.round_bf16(s.sub(v, high));
                                s.store_bf16(to.add(low).cast::<u16>().add(lane), rest);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<T: Transform<A, M>, const A: usize, const M: usize> InputTask<'_, T, A, M> {
    /// The pixels under the run's tiles, normalised; zeros beyond the image's edges.
    #[inline(always)]
    fn fill_strip<S: Simd>(&self, s: S, (start, channels, padded): (usize, usize, usize), columns: usize) {
        let sizes = self.tiling.sizes;
        let (row, line, across) = self.tiling.place(self.run.0);
        let (source_h, source_w) = sizes.source;
        let norm = self.operands.norm;
        let norm = norm.map(|norm| norm.part(row * self.inputs + start, channels));
        let step = M * T::STRIDE;
        let ahead = AHEAD.next_multiple_of(self.inputs);
        for i in 0..A {
            let y = (line * step + i)
                .checked_sub(sizes.before)
                .filter(|&y| y < sizes.input.0);
            for j in 0..columns {
                let x = (across * step + j)
                    .checked_sub(sizes.before)
                    .filter(|&x| x < sizes.input.1);
                // SAFETY: the strip has A lines of `columns` pixels.
                let pixel = unsafe {
                    std::slice::from_raw_parts_mut(
                        self.strip.add((i * columns + j) * self.channels.1),
                        padded,
                    )
                };
                let (Some(y), Some(x)) = (y, x) else {
                    pixel.fill(0.0);
                    continue;
                };
                let at = (row * source_h + self.operands.lines[y]) * source_w + self.operands.columns[x];
                let source = &self.operands.x[at * self.inputs + start..][..channels];
                for line in (0..channels).step_by(LINE / size_of::<f32>()) {
                    s.prefetch(source.as_ptr().wrapping_add(ahead + line).cast());
                }
                match norm {
                    Some(norm) => norm::apply_with(s, source, norm, pixel),
                    None => pixel[..channels].copy_from_slice(source),
                }
                pixel[channels..].fill(0.0);
            }
        }
    }
}
