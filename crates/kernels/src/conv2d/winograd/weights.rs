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

/// Which of the weights that are transformed from line `line` on a position has.
#[inline(always)]
pub(super) fn number<T: Transform<A, M>, const A: usize, const M: usize>(
    position: usize,
    line: usize,
) -> usize {
    let last = T::DISTINCT - 1;
    ((position / A).min(last) - line) * T::DISTINCT + (position % A).min(last)
}

/// The positions of lines `line` and `line + 1` of one panel that differ, for the phases (down, across) of the result.
/// `taps`: \[channel\]\[9\]\[16\]; `u`: \[position\]\[channel\]\[16\], positions `next` apart.
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
    const { assert!(T::DISTINCT % LINES == 0) };
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
                    let taps = load_column(s, taps.add(column * PANEL));
                    for (row, by) in down.iter_mut().zip(lines) {
                        row[column] = weighted(s, taps, by);
                    }
                }
                for (i, row) in down.into_iter().enumerate() {
                    for (j, v) in T::weights(s, phase.1, row)
                        .into_iter()
                        .take(T::DISTINCT)
                        .enumerate()
                    {
                        s.store(u.add((i * T::DISTINCT + j) * next), v);
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
        let taps = unsafe { load_column(s, taps.add(column * PANEL)) };
        *v = weighted(s, taps, by);
    }
    T::weights(s, phase.1, row)
}

/// The three taps of a column, of which `first` is the uppermost.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn load_column<S: Simd>(s: S, first: *const f32) -> [S::V; 3] {
    // SAFETY: vouched for by the caller.
    unsafe {
        [
            s.load(first),
            s.load(first.add(3 * PANEL)),
            s.load(first.add(6 * PANEL)),
        ]
    }
}

/// A column of taps by a line of G: the one place that says in which order, so that both ways of transforming weights
/// give the same bits.
#[inline(always)]
fn weighted<S: Simd>(s: S, taps: [S::V; 3], by: [S::V; 3]) -> S::V {
    s.fma(by[2], taps[2], s.fma(by[1], taps[1], s.mul(by[0], taps[0])))
}
