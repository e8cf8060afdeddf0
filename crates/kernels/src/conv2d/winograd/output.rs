//! Aᵀ m A: sums into output pixels, with bias and residual.

use std::mem::MaybeUninit;

use super::transform::Transform;
use super::{Place, SKEW, Tiling};
use crate::conv2d::{Conv2d, Operands, Sizes};
use crate::simd::{Kernel, LINE, PANEL, Simd};

/// Numbers of a result that is written past the caches: 64 MiB.
const STREAMED: usize = 16 << 20;

/// How many tiles in advance a tile's residual is prefetched.
const AHEAD: usize = 4;

/// Some tiles and some output panels.
pub(super) struct OutputTask<'a, T, const A: usize, const M: usize> {
    pub(super) conv: &'a Conv2d,
    pub(super) operands: Operands<'a>,
    pub(super) tiling: Tiling,
    pub(super) tiles: (usize, usize),
    pub(super) panels: (usize, usize),
    /// Down and across.
    pub(super) phase: (usize, usize),
    /// \[position\]\[panel\]\[tile\]\[16\]
    pub(super) sums: *const f32,
    pub(super) out: *mut f32,
    pub(super) transform: std::marker::PhantomData<T>,
}

impl<T: Transform<A, M>, const A: usize, const M: usize> Kernel for OutputTask<'_, T, A, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let stream = self.exceeds_caches();
        let (first_tile, tiles) = self.tiles;
        let (first_panel, panels) = self.panels;
        let next = panels * tiles * PANEL + SKEW;
        for tile in 0..tiles {
            if tile + AHEAD < tiles {
                self.prefetch_residual(s, self.tiling.place(first_tile + tile + AHEAD));
            }
            let place = self.tiling.place(first_tile + tile);
            for panel in 0..panels {
                let column = (first_panel + panel) * PANEL;
                for lane in (0..PANEL).step_by(S::LANES) {
                    // SAFETY: the sums hold these tiles and panels at every position.
                    unsafe {
                        let from = self.sums.add((panel * tiles + tile) * PANEL + lane);
                        let mut down = [[MaybeUninit::uninit(); A]; M];
                        for j in 0..A {
                            let mut m = [s.splat(0.0); A];
                            for (i, m) in m.iter_mut().enumerate() {
                                *m = s.load(from.add((i * A + j) * next));
                            }
                            for (row, v) in down.iter_mut().zip(T::output(s, m)) {
                                row[j].write(v);
                            }
                        }
                        self.write(s, (place, column + lane), &down, stream);
                    }
                }
            }
        }
        if stream {
            s.fence();
        }
    }
}

impl<T: Transform<A, M>, const A: usize, const M: usize> OutputTask<'_, T, A, M> {
    /// Whether the result is written past the caches, because it is too large for them and made of whole lines: a line
    /// that is written through the caches is read first.
    fn exceeds_caches(&self) -> bool {
        let Sizes { rows, output, .. } = self.tiling.sizes;
        let outputs = self.conv.outputs;
        rows * output.0 * output.1 * outputs >= STREAMED
            && outputs.is_multiple_of(PANEL)
            && self.out.addr().is_multiple_of(LINE)
    }

    /// The number of the output pixel at (i, j) of a tile, if it is in the image.
    #[inline(always)]
    fn pixel(&self, (row, line, across): Place, i: usize, j: usize) -> Option<usize> {
        let (h, w) = self.tiling.results;
        let phases = T::PHASES;
        let line = inside(line * M + i, self.phase.0, h)?;
        let across = inside(across * M + j, self.phase.1, w)?;
        let (y, x) = (phases * line + self.phase.0, phases * across + self.phase.1);
        Some((row * phases * h + y) * phases * w + x)
    }

    /// Prefetches the residual of a later tile.
    #[inline(always)]
    fn prefetch_residual<S: Simd>(&self, s: S, place: Place) {
        let Some(residual) = self.operands.residual else {
            return;
        };
        for i in 0..M {
            for j in 0..M {
                if let Some(pixel) = self.pixel(place, i, j) {
                    let first = pixel * self.conv.outputs + self.panels.0 * PANEL;
                    for panel in 0..self.panels.1 {
                        s.prefetch(residual.as_ptr().wrapping_add(first + panel * PANEL).cast());
                    }
                }
            }
        }
    }

    /// The second half of the transform, and the pixels of the tile that exist, one vector of channels.
    ///
    /// # Safety
    /// The tile exists, `column` is a packed column, and all of `down` has been written.
    #[inline(always)]
    unsafe fn write<S: Simd>(
        &self,
        s: S,
        (place, column): (Place, usize),
        down: &[[MaybeUninit<S::V>; A]; M],
        stream: bool,
    ) {
        let outputs = self.conv.outputs;
        if column >= outputs {
            return;
        }
        let width = S::LANES.min(outputs - column);
        let (row, ..) = place;
        // SAFETY: the bias has as many columns as are packed.
        let bias = unsafe { s.load(self.operands.biases_of(row).as_ptr().add(column)) };
        let scale = s.splat(T::SCALE * T::SCALE);
        for (i, half) in down.iter().enumerate() {
            let mut m = [s.splat(0.0); A];
            for (m, half) in m.iter_mut().zip(half) {
                // SAFETY: vouched for by the caller.
                *m = unsafe { half.assume_init() };
            }
            for (j, pixel) in T::output(s, m).into_iter().enumerate() {
                let Some(number) = self.pixel(place, i, j) else {
                    continue;
                };
                let at = number * outputs + column;
                let mut y = s.fma(pixel, scale, bias);
                let residual = self.operands.residual.map(|residual| &residual[at..at + width]);
                // SAFETY: the pixel is in the image, so `width` numbers at `at` are in the result.
                unsafe {
                    let out = self.out.add(at);
                    if width == S::LANES {
                        if let Some(residual) = residual {
                            y = s.add(y, s.load(residual.as_ptr()));
                        }
                        if stream {
                            s.stream(out, y);
                        } else {
                            s.store(out, y);
                        }
                    } else {
                        let mut values = [0.0_f32; PANEL];
                        if let Some(residual) = residual {
                            values[..width].copy_from_slice(residual);
                        }
                        y = s.add(y, s.load(values.as_ptr()));
                        s.store(values.as_mut_ptr(), y);
                        std::ptr::copy_nonoverlapping(values.as_ptr(), out, width);
                    }
                }
            }
        }
    }
}

/// The position among the results of phase `phase` of the one at place `number` of its tiles, if it exists.
#[inline(always)]
fn inside(number: usize, phase: usize, size: usize) -> Option<usize> {
    let result = number.wrapping_sub(phase);
    if result < size { Some(result) } else { None }
}
