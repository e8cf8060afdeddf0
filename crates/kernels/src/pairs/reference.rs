//! The order of sums of AMX's tiles, by the instructions of f32.

use super::{PAIRS, PairProduct};
use crate::simd::{Accumulate, PANEL, Product, Simd};

/// # Safety
/// As [`PairProduct::run`].
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(s: S, pairs: PairProduct) {
    let Product {
        a,
        k,
        panels,
        w,
        next_w,
        c,
        stride,
        next_c,
        accumulate,
        ..
    } = pairs.product;
    for (row, panel) in (0..a.count).flat_map(|row| (0..panels).map(move |panel| (row, panel))) {
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                let c = c.add(panel * next_c + row * stride + lane);
                let (row, column) = (row * a.stride, panel * next_w + lane);
                let mut sum = match accumulate {
                    Accumulate::Continue => s.load(c),
                    Accumulate::Overwrite | Accumulate::Add => s.splat(0.0),
                };
                let (a_high, w_high) = (a.first.add(row), w.add(column));
                for start in (0..k).step_by(PAIRS) {
                    let part = (start, k.min(start + PAIRS));
                    if let Some((a_low, w_low)) = pairs.low {
                        let (a_low, w_low) = (a_low.add(row), w_low.add(column));
                        sum = s.add(sum, step(s, (a_high, a.step), w_low, part));
                        sum = s.add(sum, step(s, (a_high, a.step), w_high, part));
                        sum = s.add(sum, step(s, (a_low, a.step), w_high, part));
                    } else {
                        sum = s.add(sum, step(s, (a_high, a.step), w_high, part));
                    }
                }
                if accumulate == Accumulate::Add {
                    sum = s.add(s.load(c), sum);
                }
                s.store(c, sum);
            }
        }
    }
}

/// The sum of some pairs' products: those of the first numbers, and those of the second.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn step<S: Simd>(
    s: S,
    (a, next): (*const f32, usize),
    w: *const f32,
    (start, end): (usize, usize),
) -> S::V {
    let (mut first, mut second) = (s.splat(0.0), s.splat(0.0));
    for pair in start..end {
        // SAFETY: vouched for by the caller.
        let (x, weight) = unsafe { (s.splat(*a.add(pair * next)), s.load(w.add(pair * PANEL))) };
        let ((x, x2), (weight, weight2)) = (s.split_pairs(x), s.split_pairs(weight));
        first = s.fma(x, weight, first);
        second = s.fma(x2, weight2, second);
    }
    s.add(first, second)
}
