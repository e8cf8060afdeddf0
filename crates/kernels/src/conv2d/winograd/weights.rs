//! G g Gᵀ: the weights of one output panel and a block of input channels, as the products read them.

use super::transform::Transform;
use super::{CHANNELS, SKEW};
use crate::simd::{PANEL, Simd};

/// Room for one panel's weights as f32 before the transform.
pub(super) const RAW: usize = 9 * CHANNELS * PANEL;

/// Room for the transformed weights of `panels` panels.
pub(super) const fn room(a: usize, panels: usize) -> usize {
    panels * a * a * POSITION
}

/// From one position to the next.
pub(super) const POSITION: usize = CHANNELS * PANEL + SKEW;

/// `taps`: \[channel\]\[9\]\[16\]; `u`: \[position\]\[CHANNELS\]\[16\], positions
/// [`POSITION`] apart.
///
/// # Safety
/// Both are there for `channels` channels.
#[inline(always)]
pub(super) unsafe fn transform<S: Simd, T: Transform<A, M>, const A: usize, const M: usize>(
    s: S,
    taps: *const f32,
    channels: usize,
    u: *mut f32,
) {
    for channel in 0..channels {
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                let taps = taps.add(channel * 9 * PANEL + lane);
                let u = u.add(channel * PANEL + lane);
                let mut down = [[s.splat(0.0); 3]; A];
                for column in 0..3 {
                    let g = [
                        s.load(taps.add(column * PANEL)),
                        s.load(taps.add((3 + column) * PANEL)),
                        s.load(taps.add((6 + column) * PANEL)),
                    ];
                    for (row, v) in down.iter_mut().zip(T::weights(s, g)) {
                        row[column] = v;
                    }
                }
                for (i, row) in down.into_iter().enumerate() {
                    for (j, v) in T::weights(s, row).into_iter().enumerate() {
                        s.store(u.add((i * A + j) * POSITION), v);
                    }
                }
            }
        }
    }
}
