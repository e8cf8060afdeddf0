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

/// How many channels in advance taps are prefetched: what is written here evicts them from the L2 cache.
const AHEAD: usize = 8;

/// The number of a position's weights among those that are transformed from line `line` on.
#[inline(always)]
pub(super) fn number<T: Transform<A, M>, const A: usize, const M: usize>(
    position: usize,
    line: usize,
) -> usize {
    let last = T::DISTINCT - 1;
    ((position / A).min(last) - line) * T::DISTINCT + (position % A).min(last)
}

/// The positions of a pair of lines of one panel that differ, for the phases (down, across) of the result.
/// `taps`: \[channel\]\[9\]\[16\]; `u`: \[position\]\[channel\]\[16\], positions `next` apart.
///
/// # Safety
/// Both are there for `channels` channels.
#[inline(always)]
pub(super) unsafe fn transform<S: Simd, T: Transform<A, M>, const A: usize, const M: usize>(
    s: S,
    taps: *const f32,
    channels: usize,
    (pair, phase): (usize, (usize, usize)),
    (u, next): (*mut f32, usize),
) {
    for channel in 0..channels {
        for tap in 0..9 {
            let following = (channel + AHEAD) * 9 + tap;
            s.prefetch_near(taps.wrapping_add(following * PANEL).cast());
        }
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                let taps = taps.add(channel * 9 * PANEL + lane);
                let u = u.add(channel * PANEL + lane);
                let mut down = [[s.splat(0.0); 3]; LINES];
                for column in 0..3 {
                    let taps = load_column(s, taps.add(column * PANEL));
                    for (row, v) in down.iter_mut().zip(T::weights(s, phase.0, pair, taps)) {
                        row[column] = v;
                    }
                }
                for (i, row) in down.into_iter().enumerate() {
                    for across in 0..T::DISTINCT / 2 {
                        for (j, v) in T::weights(s, phase.1, across, row).into_iter().enumerate() {
                            s.store(u.add((i * T::DISTINCT + 2 * across + j) * next), v);
                        }
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
    let mut row = [s.splat(0.0); 3];
    for (column, v) in row.iter_mut().enumerate() {
        // SAFETY: vouched for by the caller.
        let taps = unsafe { load_column(s, taps.add(column * PANEL)) };
        *v = T::weights(s, phase.0, line / 2, taps)[line % 2];
    }
    let mut positions = [row[0]; A];
    for (j, v) in positions.iter_mut().enumerate() {
        let j = j.min(T::DISTINCT - 1);
        *v = T::weights(s, phase.1, j / 2, row)[j % 2];
    }
    positions
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
