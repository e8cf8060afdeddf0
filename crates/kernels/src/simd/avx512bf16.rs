//! The bfloat16 extension of AVX-512: Intel since Cooper Lake, AMD since Zen 4. One instruction for two products in each of
//! sixteen sums; everything else is AVX-512.

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::product::Tiles;
use super::tile::{Step, compiled};
use super::{Product, Simd};

/// Proof that the machine has AVX-512 F, DQ and BF16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub(crate) fn detect() -> Option<Self> {
        let has_it = is_x86_feature_detected!("avx512bf16");
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
