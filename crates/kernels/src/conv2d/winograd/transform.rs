//! The constants of F(2x2, 3x3), F(4x4, 3x3), F(6x6, 3x3) and F(5x5, 2x2) (Lavin and Gray, 2016, section 4), one
//! dimension at a time.

use crate::simd::Simd;

/// M results of a short filter from A inputs by A multiplications.
///
/// Positions come in pairs, of opposite points where possible, whose sums share their even and odd halves. The division by
/// each point's basis polynomial is left to Aᵀ, which multiplies by constants anyway: so the transform of the weights,
/// most of the work where there are few tiles, takes three operations a pair.
pub(super) trait Transform<const A: usize, const M: usize>: Send + Sync {
    /// Results between two pixels of the input: two where the image is doubled on the way.
    const PHASES: usize = 1;
    /// Whether each block of channels is summed separately, because this transform amplifies rounding errors so much.
    const IN_PARTS: bool = false;
    /// Pixels of the input from one result to the next.
    const STRIDE: usize = 1;
    /// How many lines of G differ, an even number: those that follow equal the last of them.
    const DISTINCT: usize = A;
    /// A factor that results still need, once for each dimension.
    const SCALE: f32 = 1.0;
    /// Bᵀ d
    fn input<S: Simd>(s: S, d: [S::V; A]) -> [S::V; A];
    /// Lines 2 `pair` and 2 `pair` + 1 of G g, in a phase of the result.
    fn weights<S: Simd>(s: S, phase: usize, pair: usize, g: [S::V; 3]) -> [S::V; 2];
    /// Aᵀ m
    fn output<S: Simd>(s: S, m: [S::V; A]) -> [S::V; M];
}

/// The polynomial with the coefficients g at `point` and at the opposite one.
#[inline(always)]
fn opposite<S: Simd>(s: S, point: f32, g: [S::V; 3]) -> [S::V; 2] {
    let even = s.fma(s.splat(point * point), g[2], g[0]);
    [
        s.fma(s.splat(point), g[1], even),
        s.fnma(s.splat(point), g[1], even),
    ]
}

/// Interpolation points 0, ∞, ±1.
#[derive(Debug)]
pub(super) struct F2;

impl Transform<4, 2> for F2 {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        [
            s.sub(d[0], d[2]),
            s.sub(d[3], d[1]),
            s.add(d[1], d[2]),
            s.sub(d[2], d[1]),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, _: usize, pair: usize, g: [S::V; 3]) -> [S::V; 2] {
        match pair {
            0 => [g[0], g[2]],
            _ => opposite(s, 1.0, g),
        }
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 4]) -> [S::V; 2] {
        let half = s.splat(0.5);
        [
            s.fma(half, s.add(m[2], m[3]), m[0]),
            s.fma(half, s.sub(m[2], m[3]), m[1]),
        ]
    }
}

/// Interpolation points 0, ∞, ±5/8, ±3/2.
///
/// Lavin and Gray take 0, ±1, ±2, ∞, whose matrices are integers. Which points are taken decides how much the rounding
/// errors grow (Barabasz, Anderson, Soodhalter and Gregg, 2020, "Error Analysis and Improving the Accuracy of Winograd
/// Convolution for Deep Neural Networks"); these, still symmetric and exact in binary, halve the error and quarter its
/// largest values, for two multiplications more.
#[derive(Debug)]
pub(super) struct F4;

/// The two positive points, their squares and cubes.
const A1: f32 = 0.625;
const B1: f32 = 1.5;
const A2: f32 = A1 * A1;
const B2: f32 = B1 * B1;
const A3: f32 = A2 * A1;
const B3: f32 = B2 * B1;

/// What Lagrange's basis polynomial of each point is divided by.
const N0: f32 = A2 * B2;
const NA: f32 = 2.0 * A2 * (A2 - B2);
const NB: f32 = 2.0 * B2 * (B2 - A2);

impl Transform<6, 4> for F4 {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        let (product, sum) = (s.splat(A2 * B2), s.splat(A2 + B2));
        let (even_a, even_b) = (s.fnma(s.splat(B2), d[2], d[4]), s.fnma(s.splat(A2), d[2], d[4]));
        let (odd_a, odd_b) = (
            s.mul(s.splat(A1), s.fnma(s.splat(B2), d[1], d[3])),
            s.mul(s.splat(B1), s.fnma(s.splat(A2), d[1], d[3])),
        );
        [
            s.fma(product, d[0], s.fnma(sum, d[2], d[4])),
            s.fma(product, d[1], s.fnma(sum, d[3], d[5])),
            s.add(even_a, odd_a),
            s.sub(even_a, odd_a),
            s.add(even_b, odd_b),
            s.sub(even_b, odd_b),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, _: usize, pair: usize, g: [S::V; 3]) -> [S::V; 2] {
        match pair {
            0 => [g[0], g[2]],
            1 => opposite(s, A1, g),
            _ => opposite(s, B1, g),
        }
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 4] {
        let (even_a, odd_a) = (s.add(m[2], m[3]), s.sub(m[2], m[3]));
        let (even_b, odd_b) = (s.add(m[4], m[5]), s.sub(m[4], m[5]));
        let zero = s.mul(s.splat(1.0 / N0), m[0]);
        [
            s.fma(s.splat(1.0 / NA), even_a, s.fma(s.splat(1.0 / NB), even_b, zero)),
            s.fma(s.splat(A1 / NA), odd_a, s.mul(s.splat(B1 / NB), odd_b)),
            s.fma(s.splat(A2 / NA), even_a, s.mul(s.splat(B2 / NB), even_b)),
            s.fma(s.splat(A3 / NA), odd_a, s.fma(s.splat(B3 / NB), odd_b, m[1])),
        ]
    }
}

/// Interpolation points 0, ∞, ±1/2, ±1, ±2: of all that were tried those with the smallest error, and their powers are
/// exact.
///
/// 1.78 multiplications for each pixel instead of 2.25, for four times the error of [`F4`], half of it where there are
/// many channels, as sums are taken in parts.
#[derive(Debug)]
pub(super) struct F6;

const POINTS: [f32; 3] = [0.5, 1.0, 2.0];

/// The coefficients of (x² - a²)(x² - b²)(x² - c²) without their signs.
const S1: f32 = square(0) + square(1) + square(2);
const S2: f32 = square(0) * square(1) + square(0) * square(2) + square(1) * square(2);
const S3: f32 = square(0) * square(1) * square(2);

const fn square(i: usize) -> f32 {
    POINTS[i % 3] * POINTS[i % 3]
}

/// What the basis polynomial of the point ±`POINTS[i]` is divided by.
const fn divisor(i: usize) -> f32 {
    2.0 * square(i) * (square(i) - square(i + 1)) * (square(i) - square(i + 2))
}

/// The same of the pairs ±1/2 and ±2 and of 0, relative to that of ±1.
const HALF: f32 = divisor(1) / divisor(0);
const TWO: f32 = divisor(1) / divisor(2);
const ZERO: f32 = divisor(1) / -S3;

/// d times the polynomial of all finite points but 0.
#[inline(always)]
fn without_zero<S: Simd>(s: S, d: [S::V; 4]) -> S::V {
    let outer = s.fnma(s.splat(S1), d[2], d[3]);
    s.fnma(s.splat(S3), d[0], s.fma(s.splat(S2), d[1], outer))
}

/// The sum of three pairs of opposite points, of which the first and last, 1/2 and 2, are raised to some power.
#[inline(always)]
fn raised<S: Simd>(s: S, pairs: [S::V; 3], [first, last]: [f32; 2]) -> S::V {
    let halves = s.fma(s.splat(first * HALF), pairs[0], pairs[1]);
    s.fma(s.splat(last * TWO), pairs[2], halves)
}

impl Transform<8, 6> for F6 {
    const IN_PARTS: bool = true;
    const SCALE: f32 = 1.0 / divisor(1);

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 8]) -> [S::V; 8] {
        let mut v = [d[0]; 8];
        v[0] = without_zero(s, [d[0], d[2], d[4], d[6]]);
        v[1] = without_zero(s, [d[1], d[3], d[5], d[7]]);
        for (i, point) in POINTS.into_iter().enumerate() {
            let (b, c) = (square(i + 1), square(i + 2));
            let (sum, product) = (s.splat(b + c), s.splat(b * c));
            let even = s.fma(product, d[2], s.fnma(sum, d[4], d[6]));
            let odd = s.fma(product, d[1], s.fnma(sum, d[3], d[5]));
            let odd = s.mul(s.splat(point), odd);
            v[2 * i + 2] = s.add(even, odd);
            v[2 * i + 3] = s.sub(even, odd);
        }
        v
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, _: usize, pair: usize, g: [S::V; 3]) -> [S::V; 2] {
        match pair {
            0 => [g[0], g[2]],
            _ => opposite(s, POINTS[pair - 1], g),
        }
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 8]) -> [S::V; 6] {
        let even = [s.add(m[2], m[3]), s.add(m[4], m[5]), s.add(m[6], m[7])];
        let odd = [s.sub(m[2], m[3]), s.sub(m[4], m[5]), s.sub(m[6], m[7])];
        [
            s.fma(s.splat(ZERO), m[0], raised(s, even, [1.0, 1.0])),
            raised(s, odd, [0.5, 2.0]),
            raised(s, even, [0.25, 4.0]),
            raised(s, odd, [0.125, 8.0]),
            raised(s, even, [0.0625, 16.0]),
            s.fma(s.splat(divisor(1)), m[1], raised(s, odd, [0.03125, 32.0])),
        ]
    }
}

const A4: f32 = A2 * A2;
const B4: f32 = B2 * B2;

/// An image that is doubled by its nearest neighbours and then convolved: of the three taps two lie on the same pixel of
/// the small image, so each result is one of two taps there, and five of them come from the six multiplications that
/// make four of three taps. 1.44 multiplications for each pixel of the result instead of 2.25.
///
/// The phases are the even results, of the pixel before and the pixel itself, and the odd ones, of the pixel itself and
/// the one after. Points and Bᵀ are those of [`F4`].
#[derive(Debug)]
pub(super) struct Doubled;

impl Transform<6, 5> for Doubled {
    const PHASES: usize = 2;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        F4::input(s, d)
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, phase: usize, pair: usize, g: [S::V; 3]) -> [S::V; 2] {
        let (before, after) = if phase == 0 {
            (g[0], s.add(g[1], g[2]))
        } else {
            (s.add(g[0], g[1]), g[2])
        };
        match pair {
            0 => [before, after],
            1 => beside(s, A1, before, after),
            _ => beside(s, B1, before, after),
        }
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 5] {
        let [first, second, third, _] = F4::output(s, m);
        let (odd_a, odd_b) = (s.sub(m[2], m[3]), s.sub(m[4], m[5]));
        let (even_a, even_b) = (s.add(m[2], m[3]), s.add(m[4], m[5]));
        [
            first,
            second,
            third,
            s.fma(s.splat(A3 / NA), odd_a, s.mul(s.splat(B3 / NB), odd_b)),
            s.fma(s.splat(A4 / NA), even_a, s.fma(s.splat(B4 / NB), even_b, m[1])),
        ]
    }
}

/// Two taps at `point` and at the opposite one.
#[inline(always)]
fn beside<S: Simd>(s: S, point: f32, before: S::V, after: S::V) -> [S::V; 2] {
    let point = s.splat(point);
    [s.fma(point, after, before), s.fnma(point, after, before)]
}

/// Stride 2: even pixels of the input meet the first and the last tap, odd ones the middle tap. So four results are those
/// of two taps, F(4, 2) in five multiplications, and those of a single tap, in four: in two dimensions 5.06 for each
/// result instead of 9. Odd positions share their weights.
///
/// Interpolation points ±3/8, ±5/4, ∞: of all pairs of multiples of an eighth up to two those with the smallest error.
/// It is half of that with 0, ±1, 2, ∞, and pairs need fewer operations.
#[derive(Debug)]
pub(super) struct Strided;

/// The two positive points, their squares, and what their basis polynomials are divided by.
const P1: f32 = 0.375;
const Q1: f32 = 1.25;
const P2: f32 = P1 * P1;
const Q2: f32 = Q1 * Q1;
const NP: f32 = 2.0 * P1 * (P2 - Q2);
const NQ: f32 = 2.0 * Q1 * (Q2 - P2);

impl Transform<9, 4> for Strided {
    const STRIDE: usize = 2;
    const DISTINCT: usize = 6;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 9]) -> [S::V; 9] {
        let (p, p_squared) = (s.splat(P1), s.splat(P2));
        let (q, q_squared) = (s.splat(Q1), s.splat(Q2));
        let (even_p, odd_p) = (s.fnma(q_squared, d[2], d[6]), s.fnma(q_squared, d[0], d[4]));
        let (even_q, odd_q) = (s.fnma(p_squared, d[2], d[6]), s.fnma(p_squared, d[0], d[4]));
        [
            s.fma(p, odd_p, even_p),
            s.fnma(p, odd_p, even_p),
            s.fma(q, odd_q, even_q),
            s.fnma(q, odd_q, even_q),
            s.fma(s.splat(P2 * Q2), d[0], s.fnma(s.splat(P2 + Q2), d[4], d[8])),
            d[1],
            d[3],
            d[5],
            d[7],
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, _: usize, pair: usize, g: [S::V; 3]) -> [S::V; 2] {
        match pair {
            0 => beside(s, P1, g[0], g[2]),
            1 => beside(s, Q1, g[0], g[2]),
            _ => [g[2], g[1]],
        }
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 9]) -> [S::V; 4] {
        // The divisors of opposite points have opposite signs.
        let (even_p, odd_p) = (s.sub(m[0], m[1]), s.add(m[0], m[1]));
        let (even_q, odd_q) = (s.sub(m[2], m[3]), s.add(m[2], m[3]));
        let last = s.add(m[4], m[8]);
        [
            s.fma(s.splat(1.0 / NP), even_p, s.fma(s.splat(1.0 / NQ), even_q, m[5])),
            s.fma(s.splat(P1 / NP), odd_p, s.fma(s.splat(Q1 / NQ), odd_q, m[6])),
            s.fma(s.splat(P2 / NP), even_p, s.fma(s.splat(Q2 / NQ), even_q, m[7])),
            s.fma(
                s.splat(P2 * P1 / NP),
                odd_p,
                s.fma(s.splat(Q2 * Q1 / NQ), odd_q, last),
            ),
        ]
    }
}
