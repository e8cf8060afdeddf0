//! NEON: every 64-bit ARM processor. Four lanes, thirty-two registers; a vector here is a pair, to halve the loop
//! overhead of the narrow registers.

use std::arch::aarch64::*;

use super::tile::matrix_kernels;
use super::{Kernel, Mix, Simd, Tile};

/// Proof that the machine has NEON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

type V = [float32x4_t; 2];

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    pub(crate) fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn enabled<K: Kernel>(s: Neon, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: the token proves the instructions.
        unsafe { enabled(self, kernel) }
    }
}

matrix_kernels!(#[target_feature(enable = "neon")] Neon, 2, [1: 1, 1: 2, 1: 3, 1: 4, 1: 5, 1: 6]);

/// An intrinsic without memory operands, or the named loads and stores.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: the token proves the instructions; pointers are vouched for by the caller.
        unsafe { $e }
    };
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
    // The conversion instruction works on a type that stable Rust does not have yet.
    #[inline(always)]
    unsafe fn widen_f16(self, p: *const u16) -> V {
        let bits = op!(p.cast::<[u16; 8]>().read_unaligned());
        let wide = bits.map(|bits| half::f16::from_bits(bits).to_f32());
        op!(self.load(wide.as_ptr()))
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
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        op!([vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        op!([vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        op!([vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        op!([vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        op!([vmaxq_f32(a[0], b[0]), vmaxq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        op!([vminq_f32(a[0], b[0]), vminq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        op!([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
    }
    #[inline(always)]
    fn fnma(self, a: V, b: V, c: V) -> V {
        op!([vfmsq_f32(c[0], a[0], b[0]), vfmsq_f32(c[1], a[1], b[1])])
    }
    #[inline(always)]
    fn round(self, v: V) -> V {
        op!([vrndnq_f32(v[0]), vrndnq_f32(v[1])])
    }
    #[inline(always)]
    fn scale_exp2(self, x: V, n: V) -> V {
        let scale = |x: float32x4_t, n: float32x4_t| {
            op!({
                let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
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
    unsafe fn tile(self, tile: Tile<'_>) {
        op!(tile_of(self, tile));
    }
    #[inline(always)]
    unsafe fn mix(self, mix: Mix) {
        op!(mix_of(self, mix));
    }
}
