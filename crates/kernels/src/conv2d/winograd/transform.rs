//! The constants of F(2x2, 3x3) and F(4x4, 3x3) (Lavin and Gray, 2016, section 4), one dimension at a time.

use crate::simd::Simd;

/// M results of a 3-tap filter from A = M + 2 inputs by A multiplications.
pub(super) trait Transform<const A: usize, const M: usize>: Send + Sync {
    /// Bᵀ d
    fn input<S: Simd>(s: S, d: [S::V; A]) -> [S::V; A];
    /// G g
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; A];
    /// Aᵀ m
    fn output<S: Simd>(s: S, m: [S::V; A]) -> [S::V; M];
}

/// Interpolation points 0, 1, -1, ∞.
#[derive(Debug)]
pub(super) struct F2;

impl Transform<4, 2> for F2 {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        [
            s.sub(d[0], d[2]),
            s.add(d[1], d[2]),
            s.sub(d[2], d[1]),
            s.sub(d[1], d[3]),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 4] {
        let half = s.splat(0.5);
        let even = s.mul(s.add(g[0], g[2]), half);
        let odd = s.mul(g[1], half);
        [g[0], s.add(even, odd), s.sub(even, odd), g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 4]) -> [S::V; 2] {
        [s.add(m[0], s.add(m[1], m[2])), s.sub(m[1], s.add(m[2], m[3]))]
    }
}

/// Interpolation points 0, 1, -1, 2, -2, ∞.
#[derive(Debug)]
pub(super) struct F4;

impl Transform<6, 4> for F4 {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        let (two, four, five) = (s.splat(2.0), s.splat(4.0), s.splat(5.0));
        let a = s.fnma(four, d[2], d[4]);
        let b = s.fnma(four, d[1], d[3]);
        let c = s.sub(d[4], d[2]);
        let e = s.mul(two, s.sub(d[3], d[1]));
        [
            s.fma(four, d[0], s.fnma(five, d[2], d[4])),
            s.add(a, b),
            s.sub(a, b),
            s.add(c, e),
            s.sub(c, e),
            s.fma(four, d[1], s.fnma(five, d[3], d[5])),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 6] {
        let (sixth, twelfth, twenty_fourth) = (s.splat(1.0 / 6.0), s.splat(1.0 / 12.0), s.splat(1.0 / 24.0));
        let ends = s.add(g[0], g[2]);
        let t = s.fma(g[2], sixth, s.mul(g[0], twenty_fourth));
        let v = s.mul(g[1], twelfth);
        [
            s.mul(g[0], s.splat(0.25)),
            s.mul(s.add(ends, g[1]), s.splat(-1.0 / 6.0)),
            s.mul(s.sub(g[1], ends), sixth),
            s.add(t, v),
            s.sub(t, v),
            g[2],
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 4] {
        let (two, four, eight) = (s.splat(2.0), s.splat(4.0), s.splat(8.0));
        let (sum1, difference1) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        [
            s.add(m[0], s.add(sum1, sum2)),
            s.fma(two, difference2, difference1),
            s.fma(four, sum2, sum1),
            s.add(m[5], s.fma(eight, difference2, difference1)),
        ]
    }
}
