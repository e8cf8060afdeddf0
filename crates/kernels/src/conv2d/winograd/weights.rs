//! G g Gᵀ: the weights of one output panel and a block of input channels, as the products read them.

use super::SKEW;
use super::transform::Transform;
use crate::simd::{PANEL, Simd};

/// Room for one panel's weights of some channels as f32 before the transform.
pub(super) fn raw(channels: usize) -> usize {
    9 * channels * PANEL
}

/// From one position to the next.
pub(super) fn position(channels: usize) -> usize {
    channels * PANEL + SKEW
}

/// Lines of positions that are transformed together, so that weights are read half as often.
pub(super) const LINES: usize = 2;

/// The positions of lines `line` and `line + 1` of one panel, for the phases (down, across) of the result. `taps`: \[channel\]\[9\]\[16\]; `u`:
/// \[position\]\[channel\]\[16\], positions `next` apart.
///
/// # Safety
/// Both are there for `channels` channels.
#[inline(always)]
pub(super) unsafe fn transform<S: Simd, T: Transform<A, M>, const A: usize, const M: usize>(
    s: S,
    taps: *const f32,
    channels: usize,
    (line, phase): (usize, (usize, usize)),
    (u, next): (*mut f32, usize),
) {
    let mut lines = [[s.splat(0.0); 3]; LINES];
    for (by, line) in lines.iter_mut().zip(&T::WEIGHTS[phase.0][line..line + LINES]) {
        for (by, g) in by.iter_mut().zip(line) {
            *by = s.splat(*g);
        }
    }
    for channel in 0..channels {
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                let taps = taps.add(channel * 9 * PANEL + lane);
                let u = u.add(channel * PANEL + lane);
                let mut down = [[s.splat(0.0); 3]; LINES];
                for column in 0..3 {
                    let g0 = s.load(taps.add(column * PANEL));
                    let g1 = s.load(taps.add((3 + column) * PANEL));
                    let g2 = s.load(taps.add((6 + column) * PANEL));
                    for (row, by) in down.iter_mut().zip(lines) {
                        row[column] = s.fma(by[2], g2, s.fma(by[1], g1, s.mul(by[0], g0)));
                    }
                }
                for (i, row) in down.into_iter().enumerate() {
                    for (j, v) in T::weights(s, phase.1, row).into_iter().enumerate() {
                        s.store(u.add((i * A + j) * next), v);
                    }
                }
            }
        }
    }
}

/// One line of positions of one channel: [`transform`] for a single line, with the same operations.
///
/// # Safety
/// The nine taps are there.
#[inline(always)]
pub(super) unsafe fn line<S: Simd, T: Transform<A, M>, const A: usize, const M: usize>(
    s: S,
    taps: *const f32,
    (line, phase): (usize, (usize, usize)),
) -> [S::V; A] {
    let by = T::WEIGHTS[phase.0][line];
    let by = [s.splat(by[0]), s.splat(by[1]), s.splat(by[2])];
    let mut row = [s.splat(0.0); 3];
    for (column, v) in row.iter_mut().enumerate() {
        // SAFETY: vouched for by the caller.
        unsafe {
            let g0 = s.load(taps.add(column * PANEL));
            let g1 = s.load(taps.add((3 + column) * PANEL));
            let g2 = s.load(taps.add((6 + column) * PANEL));
            *v = s.fma(by[2], g2, s.fma(by[1], g1, s.mul(by[0], g0)));
        }
    }
    T::weights(s, phase.1, row)
}
