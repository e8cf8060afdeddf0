//! NEON: every 64-bit ARM processor. Four lanes, thirty-two registers; a vector here is a pair, to halve the loop
//! overhead of the narrow registers.

use std::arch::aarch64::*;

use super::tile::compiled;
use super::{Product, Simd};

/// Proof that the machine has NEON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

type V = [float32x4_t; 2];

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

compiled!(#[target_feature(enable = "neon")] Neon, 2, [1: 1, 1: 2, 1: 3, 1: 4, 1: 5, 1: 6]);

/// Methods of [`Simd`] that are one intrinsic for each half of a vector.
macro_rules! one_intrinsic_for_each_half {
    ($($method:ident($($arg:ident),+) = $intrinsic:ident($($operand:ident),+);)+) => {$(
        #[inline(always)]
        fn $method(self, $($arg: V),+) -> V {
            op!([$intrinsic($($operand[0]),+), $intrinsic($($operand[1]),+)])
        }
    )+};
}

impl Simd for Neon {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const PANELS: usize = 1;
    type V = V;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        op!([vdupq_n_f32(x); 2])
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        op!([vld1q_f32(p), vld1q_f32(p.add(4))])
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        op!({
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        });
    }
    #[inline(always)]
    unsafe fn widen_f16(self, p: *const u16) -> V {
        op!({
            let bits = vld1q_u16(p);
            [
                vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(bits))),
                vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(bits))),
            ]
        })
    }
    #[inline(always)]
    unsafe fn widen_bf16(self, p: *const u16) -> V {
        op!({
            let bits = vld1q_u16(p);
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(bits))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(bits))),
            ]
        })
    }
    one_intrinsic_for_each_half! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        max(a, b) = vmaxq_f32(a, b);
        min(a, b) = vminq_f32(a, b);
        fma(a, b, c) = vfmaq_f32(c, a, b);
        fnma(a, b, c) = vfmsq_f32(c, a, b);
    }
    #[inline(always)]
    fn fraction(self, v: V) -> V {
        let floor = |v: float32x4_t| op!(vrndmq_f32(v));
        self.sub(v, [floor(v[0]), floor(v[1])])
    }
    #[inline(always)]
    fn scale_exp2(self, x: V, n: V) -> V {
        let scale = |x: float32x4_t, n: float32x4_t| {
            op!({
                let exponent = vaddq_s32(vcvtmq_s32_f32(n), vdupq_n_s32(127));
                vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
            })
        };
        [scale(x[0], n[0]), scale(x[1], n[1])]
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        op!(vaddvq_f32(vaddq_f32(v[0], v[1])))
    }
    #[inline(always)]
    fn largest(self, v: V) -> f32 {
        op!(vmaxvq_f32(vmaxq_f32(v[0], v[1])))
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
