//! The constants of F(2x2, 3x3), F(4x4, 3x3), F(6x6, 3x3) and F(5x5, 2x2) (Lavin and Gray, 2016, section 4), one
//! dimension at a time.

use crate::simd::Simd;

/// M results of a short filter from A inputs by A multiplications.
pub(super) trait Transform<const A: usize, const M: usize>: Send + Sync {
    /// G for three taps, once for each phase: the results between two pixels of the input, of which there are two where
    /// the picture is doubled on the way.
    const WEIGHTS: &'static [[[f32; 3]; A]];
    /// Whether each block of channels is summed for itself: what its rounding errors are multiplied by makes that worth it.
    const IN_PARTS: bool = false;
    /// Pixels of the input from one result to the next.
    const STRIDE: usize = 1;
    /// How many lines of G differ, an even number: the last of them serves all that follow.
    const DISTINCT: usize = A;
    /// Bᵀ d
    fn input<S: Simd>(s: S, d: [S::V; A]) -> [S::V; A];
    /// G g
    fn weights<S: Simd>(s: S, phase: usize, g: [S::V; 3]) -> [S::V; A];
    /// Aᵀ m
    fn output<S: Simd>(s: S, m: [S::V; A]) -> [S::V; M];
}

/// g at a point, by its line of G, and at the opposite point.
#[inline(always)]
fn opposite<S: Simd>(s: S, line: [f32; 3], g: [S::V; 3]) -> [S::V; 2] {
    let even = s.fma(g[2], s.splat(line[2]), s.mul(g[0], s.splat(line[0])));
    let odd = s.mul(g[1], s.splat(line[1]));
    [s.add(even, odd), s.sub(even, odd)]
}

/// Interpolation points 0, 1, -1, ∞.
#[derive(Debug)]
pub(super) struct F2;

impl Transform<4, 2> for F2 {
    const WEIGHTS: &'static [[[f32; 3]; 4]] = &[[
        [1.0, 0.0, 0.0],
        [0.5, 0.5, 0.5],
        [0.5, -0.5, 0.5],
        [0.0, 0.0, 1.0],
    ]];

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
    fn weights<S: Simd>(s: S, _: usize, g: [S::V; 3]) -> [S::V; 4] {
        let [plus, minus] = opposite(s, Self::WEIGHTS[0][1], g);
        [g[0], plus, minus, g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 4]) -> [S::V; 2] {
        [s.add(m[0], s.add(m[1], m[2])), s.sub(m[1], s.add(m[2], m[3]))]
    }
}

/// Interpolation points 0, ±5/8, ±3/2, ∞.
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
    const WEIGHTS: &'static [[[f32; 3]; 6]] = &[[
        [1.0 / N0, 0.0, 0.0],
        [1.0 / NA, A1 / NA, A2 / NA],
        [1.0 / NA, -A1 / NA, A2 / NA],
        [1.0 / NB, B1 / NB, B2 / NB],
        [1.0 / NB, -B1 / NB, B2 / NB],
        [0.0, 0.0, 1.0],
    ]];

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
            s.add(even_a, odd_a),
            s.sub(even_a, odd_a),
            s.add(even_b, odd_b),
            s.sub(even_b, odd_b),
            s.fma(product, d[1], s.fnma(sum, d[3], d[5])),
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, _: usize, g: [S::V; 3]) -> [S::V; 6] {
        let [plus_a, minus_a] = opposite(s, Self::WEIGHTS[0][1], g);
        let [plus_b, minus_b] = opposite(s, Self::WEIGHTS[0][3], g);
        let first = s.mul(g[0], s.splat(Self::WEIGHTS[0][0][0]));
        [first, plus_a, minus_a, plus_b, minus_b, g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 4] {
        let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (even_b, odd_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        [
            s.add(m[0], s.add(even_a, even_b)),
            s.fma(s.splat(A1), odd_a, s.mul(s.splat(B1), odd_b)),
            s.fma(s.splat(A2), even_a, s.mul(s.splat(B2), even_b)),
            s.fma(s.splat(A3), odd_a, s.fma(s.splat(B3), odd_b, m[5])),
        ]
    }
}

/// Interpolation points 0, ±1/2, ±1, ±2, ∞: of all that were tried those with the smallest error, and their powers are
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

/// A line of G: 1, p, p² for the point p = ±`POINTS[i]`, divided as its basis polynomial is.
const fn powers(i: usize, sign: f32) -> [f32; 3] {
    let n = 2.0 * square(i) * (square(i) - square(i + 1)) * (square(i) - square(i + 2));
    [1.0 / n, sign * POINTS[i] / n, square(i) / n]
}

/// d times the polynomial of all finite points but 0.
#[inline(always)]
fn without_zero<S: Simd>(s: S, d: [S::V; 4]) -> S::V {
    let outer = s.fnma(s.splat(S1), d[2], d[3]);
    s.fnma(s.splat(S3), d[0], s.fma(s.splat(S2), d[1], outer))
}

/// The sum of three pairs of opposite points, of which the first and last, 1/2 and 2, are raised to some power.
#[inline(always)]
fn raised<S: Simd>(s: S, pairs: [S::V; 3], [first, last]: [f32; 2]) -> S::V {
    s.fma(s.splat(last), pairs[2], s.fma(s.splat(first), pairs[0], pairs[1]))
}

impl Transform<8, 6> for F6 {
    const WEIGHTS: &'static [[[f32; 3]; 8]] = &[[
        [-1.0 / S3, 0.0, 0.0],
        powers(0, 1.0),
        powers(0, -1.0),
        powers(1, 1.0),
        powers(1, -1.0),
        powers(2, 1.0),
        powers(2, -1.0),
        [0.0, 0.0, 1.0],
    ]];
    const IN_PARTS: bool = true;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 8]) -> [S::V; 8] {
        let mut v = [d[0]; 8];
        v[0] = without_zero(s, [d[0], d[2], d[4], d[6]]);
        for (i, point) in POINTS.into_iter().enumerate() {
            let (b, c) = (square(i + 1), square(i + 2));
            let (sum, product) = (s.splat(b + c), s.splat(b * c));
            let even = s.fma(product, d[2], s.fnma(sum, d[4], d[6]));
            let odd = s.fma(product, d[1], s.fnma(sum, d[3], d[5]));
            let odd = s.mul(s.splat(point), odd);
            v[2 * i + 1] = s.add(even, odd);
            v[2 * i + 2] = s.sub(even, odd);
        }
        v[7] = without_zero(s, [d[1], d[3], d[5], d[7]]);
        v
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, _: usize, g: [S::V; 3]) -> [S::V; 8] {
        let [plus_a, minus_a] = opposite(s, Self::WEIGHTS[0][1], g);
        let [plus_b, minus_b] = opposite(s, Self::WEIGHTS[0][3], g);
        let [plus_c, minus_c] = opposite(s, Self::WEIGHTS[0][5], g);
        let first = s.mul(g[0], s.splat(Self::WEIGHTS[0][0][0]));
        [first, plus_a, minus_a, plus_b, minus_b, plus_c, minus_c, g[2]]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 8]) -> [S::V; 6] {
        let even = [s.add(m[1], m[2]), s.add(m[3], m[4]), s.add(m[5], m[6])];
        let odd = [s.sub(m[1], m[2]), s.sub(m[3], m[4]), s.sub(m[5], m[6])];
        [
            s.add(m[0], raised(s, even, [1.0, 1.0])),
            raised(s, odd, [0.5, 2.0]),
            raised(s, even, [0.25, 4.0]),
            raised(s, odd, [0.125, 8.0]),
            raised(s, even, [0.0625, 16.0]),
            s.add(m[7], raised(s, odd, [0.03125, 32.0])),
        ]
    }
}

const A4: f32 = A2 * A2;
const B4: f32 = B2 * B2;

/// A picture that is doubled by its nearest neighbours and then convolved: of the three taps two lie on the same pixel of
/// the small picture, so each result is one of two taps there, and five of them come from the six multiplications that
/// make four of three taps. 1.44 multiplications for each pixel of the result instead of 2.25.
///
/// The phases are the even results, of the pixel before and the pixel itself, and the odd ones, of the pixel itself and
/// the one after. Points and Bᵀ are those of [`F4`].
#[derive(Debug)]
pub(super) struct Doubled;

impl Transform<6, 5> for Doubled {
    const WEIGHTS: &'static [[[f32; 3]; 6]] = &[
        [
            [1.0 / N0, 0.0, 0.0],
            [1.0 / NA, A1 / NA, A1 / NA],
            [1.0 / NA, -A1 / NA, -A1 / NA],
            [1.0 / NB, B1 / NB, B1 / NB],
            [1.0 / NB, -B1 / NB, -B1 / NB],
            [0.0, 1.0, 1.0],
        ],
        [
            [1.0 / N0, 1.0 / N0, 0.0],
            [1.0 / NA, 1.0 / NA, A1 / NA],
            [1.0 / NA, 1.0 / NA, -A1 / NA],
            [1.0 / NB, 1.0 / NB, B1 / NB],
            [1.0 / NB, 1.0 / NB, -B1 / NB],
            [0.0, 0.0, 1.0],
        ],
    ];

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        F4::input(s, d)
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, phase: usize, g: [S::V; 3]) -> [S::V; 6] {
        let (before, after) = if phase == 0 {
            (g[0], s.add(g[1], g[2]))
        } else {
            (s.add(g[0], g[1]), g[2])
        };
        let (even_a, odd_a) = (s.mul(before, s.splat(1.0 / NA)), s.mul(after, s.splat(A1 / NA)));
        let (even_b, odd_b) = (s.mul(before, s.splat(1.0 / NB)), s.mul(after, s.splat(B1 / NB)));
        [
            s.mul(before, s.splat(1.0 / N0)),
            s.add(even_a, odd_a),
            s.sub(even_a, odd_a),
            s.add(even_b, odd_b),
            s.sub(even_b, odd_b),
            after,
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 5] {
        let [first, second, third, _] = F4::output(s, m);
        let (odd_a, odd_b) = (s.sub(m[1], m[2]), s.sub(m[3], m[4]));
        let (even_a, even_b) = (s.add(m[1], m[2]), s.add(m[3], m[4]));
        [
            first,
            second,
            third,
            s.fma(s.splat(A3), odd_a, s.mul(s.splat(B3), odd_b)),
            s.fma(s.splat(A4), even_a, s.fma(s.splat(B4), even_b, m[5])),
        ]
    }
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
    const WEIGHTS: &'static [[[f32; 3]; 9]] = &[[
        [1.0 / NP, 0.0, P1 / NP],
        [-1.0 / NP, 0.0, P1 / NP],
        [1.0 / NQ, 0.0, Q1 / NQ],
        [-1.0 / NQ, 0.0, Q1 / NQ],
        [0.0, 0.0, 1.0],
        [0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0],
    ]];
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
    fn weights<S: Simd>(s: S, _: usize, g: [S::V; 3]) -> [S::V; 9] {
        let (even_p, odd_p) = (s.mul(g[2], s.splat(P1 / NP)), s.mul(g[0], s.splat(1.0 / NP)));
        let (even_q, odd_q) = (s.mul(g[2], s.splat(Q1 / NQ)), s.mul(g[0], s.splat(1.0 / NQ)));
        [
            s.add(even_p, odd_p),
            s.sub(even_p, odd_p),
            s.add(even_q, odd_q),
            s.sub(even_q, odd_q),
            g[2],
            g[1],
            g[1],
            g[1],
            g[1],
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 9]) -> [S::V; 4] {
        let (even_p, odd_p) = (s.add(m[0], m[1]), s.sub(m[0], m[1]));
        let (even_q, odd_q) = (s.add(m[2], m[3]), s.sub(m[2], m[3]));
        let last = s.add(m[4], m[8]);
        [
            s.add(m[5], s.add(even_p, even_q)),
            s.fma(s.splat(P1), odd_p, s.fma(s.splat(Q1), odd_q, m[6])),
            s.fma(s.splat(P2), even_p, s.fma(s.splat(Q2), even_q, m[7])),
            s.fma(s.splat(P2 * P1), odd_p, s.fma(s.splat(Q2 * Q1), odd_q, last)),
        ]
    }
}
