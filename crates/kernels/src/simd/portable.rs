//! No instruction set in particular: arrays of eight, which the compiler turns into what the target has.

use super::tile::compiled;
use super::{Product, Simd};

/// Always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

type V = [f32; 8];

compiled!(Portable, 2, [1: 1, 1: 2, 1: 3, 1: 4]);

#[inline(always)]
fn each(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    const PANELS: usize = 1;
    type V = V;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: vouched for by the caller.
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: vouched for by the caller.
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn widen_f16(self, p: *const u16) -> V {
        // SAFETY: vouched for by the caller.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        bits.map(|bits| half::f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn widen_bf16(self, p: *const u16) -> V {
        // SAFETY: vouched for by the caller.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        each(a, b, |a, b| a / b)
    }
    // Comparisons rather than `f32::max`, to treat NaN as the vector instructions do.
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn fnma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn fraction(self, v: V) -> V {
        v.map(|v| v - v.floor())
    }
    #[inline(always)]
    fn scale_exp2(self, x: V, n: V) -> V {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "n is in -126..128"
        )]
        each(x, n, |x, n| {
            x * f32::from_bits(((n.floor() as i32 + 127) as u32) << 23)
        })
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        (v[0] + v[4]) + (v[2] + v[6]) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn largest(self, v: V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn tiles(self, product: Product, rows: usize) {
        // SAFETY: vouched for by the caller.
        unsafe { tiles_of(self, product, rows) }
    }
    #[inline(always)]
    unsafe fn pair_tiles(self, product: Product, rows: usize) {
        // SAFETY: vouched for by the caller.
        unsafe { pair_tiles_of(self, product, rows) }
    }
}
