//! AVX2 with FMA and F16C: x86-64 processors since about 2013. Eight lanes, sixteen registers.

use std::arch::x86_64::*;

use super::tile::compiled;
use super::{Product, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

compiled!(#[target_feature(enable = "avx2,fma,f16c")] Avx2, 2, [1: 1, 1: 2, 1: 3, 1: 4, 1: 5, 1: 6]);

impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const PANELS: usize = 1;
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        op!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        op!(_mm256_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        op!(_mm256_storeu_ps(p, v));
    }
    #[inline(always)]
    unsafe fn widen_f16(self, p: *const u16) -> __m256 {
        op!(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())))
    }
    #[inline(always)]
    unsafe fn widen_bf16(self, p: *const u16) -> __m256 {
        op!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(
            _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))
        )))
    }
    one_intrinsic_each! { __m256:
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        fnma(a, b, c) = _mm256_fnmadd_ps;
    }
    #[inline(always)]
    fn fraction(self, v: __m256) -> __m256 {
        self.sub(v, op!(_mm256_floor_ps(v)))
    }
    #[inline(always)]
    fn scale_exp2(self, x: __m256, n: __m256) -> __m256 {
        op!({
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(n)), _mm256_set1_epi32(127));
            _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        })
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        op!({
            let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
        })
    }
    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        op!({
            let half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
        })
    }
    #[inline(always)]
    unsafe fn tiles(self, product: Product, rows: usize) {
        op!(tiles_of(self, product, rows));
    }
    #[inline(always)]
    unsafe fn pair_tiles(self, product: Product, rows: usize) {
        op!(pair_tiles_of(self, product, rows));
    }
}
