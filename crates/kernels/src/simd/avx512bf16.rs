//! The bfloat16 extension of AVX-512: Intel since Cooper Lake, AMD since Zen 4. One instruction for two products in each of
//! sixteen sums; everything else is AVX-512.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::avx512::Avx512;
use super::product::Tiles;
use super::tile::{Step, compiled};
use super::{PANEL, Product, Simd};

/// Proof that the machine has AVX-512 F, DQ, BW and BF16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub(crate) fn detect() -> Option<Self> {
        let has_it = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
        Avx512::detect().filter(|_| has_it).map(Self)
    }
}

impl Step<Avx512> for Avx512Bf16 {
    #[inline(always)]
    fn add(self, _: Avx512, x: __m512, weight: __m512, sum: __m512) -> __m512 {
        // SAFETY: the token proves the instruction; both types are 512 bits without meaning of their own.
        unsafe {
            let (x, weight) = (
                std::mem::transmute::<__m512, __m512bh>(x),
                std::mem::transmute::<__m512, __m512bh>(weight),
            );
            _mm512_dpbf16_ps(sum, x, weight)
        }
    }
}

/// The vectors of the token, and its step.
#[inline(always)]
fn dot(token: Avx512Bf16) -> (Avx512, Avx512Bf16) {
    (token.0, token)
}

compiled!(@tile dot_tiles_of, dot, #[target_feature(enable = "avx512f,avx512dq,avx512bf16")] Avx512Bf16, 1, [
    1: 1, 1: 2, 1: 3, 1: 4, 1: 5, 1: 6, 1: 7, 1: 8, 1: 9, 1: 10, 1: 11, 1: 12,
    2: 1, 2: 2, 2: 3, 2: 4, 2: 5, 2: 6, 2: 7, 2: 8, 2: 9, 2: 10, 2: 11, 2: 12
]);

impl Tiles for Avx512Bf16 {
    const ROWS: usize = <Avx512 as Simd>::ROWS;
    const PANELS: usize = <Avx512 as Simd>::PANELS;

    #[inline(always)]
    unsafe fn run(self, product: Product, rows: usize) {
        // SAFETY: passed on from the caller.
        unsafe { dot_tiles_of(self, product, rows) }
    }
}

/// Numbers that are rounded at once.
const BLOCK: usize = 32;

impl Avx512Bf16 {
    /// Rounds `count` numbers to bfloat16, writes them to `high` and, if it is given, what is left of them, rounded, to `low`;
    /// then zeros up to `padded`, a multiple of 32. Numbers below 2^-126 become zero.
    ///
    /// # Safety
    /// The numbers can be read, and `padded` halves written in each part.
    #[expect(
        clippy::unused_self,
        reason = "the token proves that the machine has the instructions"
    )]
    pub(crate) unsafe fn narrow(
        self,
        from: *const f32,
        (count, padded): (usize, usize),
        (high, low): (*mut u16, Option<*mut u16>),
    ) {
        // SAFETY: the token proves the instructions; the rest is passed on from the caller.
        unsafe { narrow(from, (count, padded), (high, low)) }
    }

    /// The same of `rows` rows of 16 numbers, row 2 i joined with row 2 i + 1 in words of two, and zeros up to `padded` rows, a
    /// multiple of two.
    ///
    /// # Safety
    /// The rows can be read, and half as many rows of words written in each part.
    #[expect(
        clippy::unused_self,
        reason = "the token proves that the machine has the instructions"
    )]
    pub(crate) unsafe fn interleave(
        self,
        from: *const f32,
        (rows, padded): (usize, usize),
        (high, low): (*mut f32, Option<*mut f32>),
    ) {
        // SAFETY: the token proves the instructions; the rest is passed on from the caller.
        unsafe { interleave(from, (rows, padded), (high, low)) }
    }
}

impl Avx512Bf16 {
    /// `rounds` instructions in each of `N` independent chains. Returns the operations, a product and its sum being two, and a
    /// number that depends on all of them.
    #[expect(
        clippy::unused_self,
        reason = "the token proves that the machine has the instructions"
    )]
    pub(crate) fn dot_products<const N: usize>(self, rounds: usize) -> (usize, f32) {
        const LANES: usize = 16;
        // SAFETY: the token proves the instructions.
        let total = unsafe { dot_products::<N>(rounds) };
        (4 * LANES * N * rounds, total)
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_products<const N: usize>(rounds: usize) -> f32 {
    // Hidden from the compiler, which would otherwise compute the chains at compile time, or one instead of all.
    let halves = _mm512_set1_ps(black_box(0.5));
    // SAFETY: both types are 512 bits without meaning of their own.
    let halves = unsafe { std::mem::transmute::<__m512, __m512bh>(halves) };
    let mut sums = [(); N].map(|()| _mm512_set1_ps(black_box(0.0)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, halves, halves);
        }
    }
    let mut total = 0.0;
    for sum in sums {
        total += _mm512_reduce_add_ps(sum);
    }
    total
}

/// # Safety
/// As [`Avx512Bf16::narrow`], and the machine has the instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16")]
unsafe fn narrow(
    from: *const f32,
    (count, padded): (usize, usize),
    (high, low): (*mut u16, Option<*mut u16>),
) {
    for at in (0..padded).step_by(BLOCK) {
        // SAFETY: masked lanes are not read; the rest is vouched for by the caller.
        unsafe {
            let (first, second) = if at + BLOCK <= count {
                (_mm512_loadu_ps(from.add(at)), _mm512_loadu_ps(from.add(at + 16)))
            } else {
                (
                    _mm512_maskz_loadu_ps(lanes(count, at), from.wrapping_add(at)),
                    _mm512_maskz_loadu_ps(lanes(count, at + 16), from.wrapping_add(at + 16)),
                )
            };
            let rounded = round(first, second);
            _mm512_storeu_si512(high.add(at).cast(), rounded);
            if let Some(low) = low {
                let widen = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
                let first = _mm512_sub_ps(first, widen(_mm512_castsi512_si256(rounded)));
                let second = _mm512_sub_ps(second, widen(_mm512_extracti64x4_epi64::<1>(rounded)));
                _mm512_storeu_si512(low.add(at).cast(), round(first, second));
            }
        }
    }
}

/// # Safety
/// As [`Avx512Bf16::interleave`], and the machine has the instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16")]
unsafe fn interleave(
    from: *const f32,
    (rows, padded): (usize, usize),
    (high, low): (*mut f32, Option<*mut f32>),
) {
    // Word i is number i of the first row and number i of the second, which follows sixteen numbers later.
    let order: [u16; BLOCK] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: as many bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    for pair in 0..padded / 2 {
        // SAFETY: vouched for by the caller.
        unsafe {
            let (mut first, mut second) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            if 2 * pair < rows {
                first = _mm512_loadu_ps(from.add(2 * pair * PANEL));
            }
            if 2 * pair + 1 < rows {
                second = _mm512_loadu_ps(from.add((2 * pair + 1) * PANEL));
            }
            let words = _mm512_permutexvar_epi16(order, round(first, second));
            _mm512_storeu_si512(high.add(pair * PANEL).cast(), words);
            if let Some(low) = low {
                let upper = _mm512_and_si512(words, _mm512_set1_epi32(-1 << 16));
                let first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)));
                let second = _mm512_sub_ps(second, _mm512_castsi512_ps(upper));
                let words = _mm512_permutexvar_epi16(order, round(first, second));
                _mm512_storeu_si512(low.add(pair * PANEL).cast(), words);
            }
        }
    }
}

/// Sixteen numbers rounded, and after them sixteen more.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(first: __m512, second: __m512) -> __m512i {
    // SAFETY: both types are 512 bits without meaning of their own.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) }
}

/// The lanes from number `at` on that are among the first `count`.
fn lanes(count: usize, at: usize) -> u16 {
    let lanes = count.saturating_sub(at).min(16);
    ((1_u32 << lanes) - 1) as u16
}
