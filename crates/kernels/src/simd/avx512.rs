//! AVX-512 with its Foundation and DQ: x86-64 servers since about 2017, AMD since Zen 4. Sixteen lanes, thirty-two registers.

use std::arch::x86_64::*;

use super::tile::compiled;
use super::{Product, Simd};

/// Proof that the machine has AVX-512 F and DQ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")).then_some(Self(()))
    }
}

compiled!(#[target_feature(enable = "avx512f,avx512dq")] Avx512, 1, [
    1: 1, 1: 2, 1: 3, 1: 4, 1: 5, 1: 6, 1: 7, 1: 8, 1: 9, 1: 10, 1: 11, 1: 12,
    2: 1, 2: 2, 2: 3, 2: 4, 2: 5, 2: 6, 2: 7, 2: 8, 2: 9, 2: 10, 2: 11, 2: 12
]);

impl Simd for Avx512 {
    const LANES: usize = 16;
    const ROWS: usize = 12;
    const PANELS: usize = 2;
    const SCALES_TO_ZERO: bool = true;
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        op!(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        op!(_mm512_storeu_ps(p, v));
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: __m512) {
        op!(_mm512_stream_ps(p, v));
    }
    #[inline(always)]
    fn fence(self) {
        op!(_mm_sfence());
    }
    #[inline(always)]
    unsafe fn widen_f16(self, p: *const u16) -> __m512 {
        op!(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())))
    }
    #[inline(always)]
    unsafe fn widen_bf16(self, p: *const u16) -> __m512 {
        op!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))
        )))
    }
    #[inline(always)]
    fn round_bf16(self, v: __m512) -> __m512 {
        op!({
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(1 << 22));
            _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(-1 << 16)))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: __m512) {
        op!({
            let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(v)));
            _mm256_storeu_si256(p.cast(), halves);
        });
    }
    #[inline(always)]
    fn join_pairs(self, first: __m512, second: __m512) -> __m512 {
        op!({
            let first = _mm512_srli_epi32::<16>(_mm512_castps_si512(first));
            _mm512_castsi512_ps(_mm512_or_si512(first, _mm512_castps_si512(second)))
        })
    }
    #[inline(always)]
    fn split_pairs(self, pairs: __m512) -> (__m512, __m512) {
        op!({
            let bits = _mm512_castps_si512(pairs);
            let second = _mm512_and_si512(bits, _mm512_set1_epi32(-1 << 16));
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)),
                _mm512_castsi512_ps(second),
            )
        })
    }
    one_intrinsic_each! { __m512:
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        fnma(a, b, c) = _mm512_fnmadd_ps;
    }
    #[inline(always)]
    fn reciprocal(self, v: __m512) -> __m512 {
        // Fourteen bits, doubled by a step of Newton's: a third of the time of a division.
        let r = op!(_mm512_rcp14_ps(v));
        self.mul(r, self.fnma(v, r, self.splat(2.0)))
    }
    #[inline(always)]
    fn fraction(self, v: __m512) -> __m512 {
        op!(_mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(
            v
        ))
    }
    #[inline(always)]
    fn scale_exp2(self, x: __m512, n: __m512) -> __m512 {
        op!(_mm512_scalef_ps(x, n))
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        op!(_mm512_reduce_add_ps(v))
    }
    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        op!(_mm512_reduce_max_ps(v))
    }
    #[inline(always)]
    unsafe fn transpose(self, (from, next_from): (*const f32, usize), (to, next_to): (*mut f32, usize)) {
        let mut rows = [self.splat(0.0); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = op!(_mm512_loadu_ps(from.add(i * next_from)));
        }
        // Within each quarter of a vector, four rows at a time.
        let mut quarters = rows;
        for i in (0..16).step_by(4) {
            let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
            let (low, high) = op!((_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let (low2, high2) = op!((_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
            quarters[i] = op!(_mm512_shuffle_ps::<0x44>(low, low2));
            quarters[i + 1] = op!(_mm512_shuffle_ps::<0xee>(low, low2));
            quarters[i + 2] = op!(_mm512_shuffle_ps::<0x44>(high, high2));
            quarters[i + 3] = op!(_mm512_shuffle_ps::<0xee>(high, high2));
        }
        // Then quarters, as a square of four by four.
        for i in 0..4 {
            let [a, b, c, d] = [quarters[i], quarters[i + 4], quarters[i + 8], quarters[i + 12]];
            let (even, odd) = op!((
                _mm512_shuffle_f32x4::<0x88>(a, b),
                _mm512_shuffle_f32x4::<0xdd>(a, b)
            ));
            let (even2, odd2) = op!((
                _mm512_shuffle_f32x4::<0x88>(c, d),
                _mm512_shuffle_f32x4::<0xdd>(c, d)
            ));
            let columns = op!([
                _mm512_shuffle_f32x4::<0x88>(even, even2),
                _mm512_shuffle_f32x4::<0x88>(odd, odd2),
                _mm512_shuffle_f32x4::<0xdd>(even, even2),
                _mm512_shuffle_f32x4::<0xdd>(odd, odd2),
            ]);
            for (quarter, column) in columns.into_iter().enumerate() {
                op!(_mm512_storeu_ps(to.add((quarter * 4 + i) * next_to), column));
            }
        }
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
