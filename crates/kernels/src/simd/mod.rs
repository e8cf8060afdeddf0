//! Vectors of f32 for the instruction sets that the kernels know, behind one trait.
//!
//! A kernel is written once over [`Simd`] and compiled for each set. A value of a [`Simd`] type is a token: it exists
//! only where the running machine has been seen to have the instructions, which is what makes its methods safe.

/// Intrinsics inside of a [`Simd`] implementation.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: the token proves the instructions; pointers are vouched for by the caller.
        unsafe { $e }
    };
}

/// Methods of [`Simd`] that are one intrinsic each.
#[cfg(target_arch = "x86_64")]
macro_rules! one_intrinsic_each {
    ($v:ty: $($method:ident($($arg:ident),+) = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $method(self, $($arg: $v),+) -> $v {
            op!($intrinsic($($arg),+))
        }
    )+};
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512bf16;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
mod product;
mod tile;

pub(crate) use self::product::{Accumulate, PairTiles, Prefetch, Product, Rows};

/// Columns of a packed panel of weights, the same for every instruction set, so that packing does not depend on it.
pub(crate) const PANEL: usize = 16;

/// Bytes of a line of a cache.
pub(crate) const LINE: usize = 64;

/// One instruction set.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Numbers in a vector; divides [`PANEL`].
    const LANES: usize;
    /// Rows of a full tile.
    const ROWS: usize;
    /// Whether [`Simd::scale_exp2`] takes any small n.
    const SCALES_TO_ZERO: bool = false;
    /// Panels of a full tile.
    const PANELS: usize;
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` numbers can be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` numbers can be written at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// As [`Simd::store`], past the caches where the set can do that for whole lines of 64 bytes; for results that are too
    /// large to be found there later. Followed by [`Simd::fence`].
    ///
    /// # Safety
    /// `LANES` numbers can be written at `p`, which is a multiple of 64.
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::V) {
        // SAFETY: passed on from the caller.
        unsafe { self.store(p, v) }
    }
    /// Makes what has been streamed visible to other threads.
    #[inline(always)]
    fn fence(self) {}
    /// # Safety
    /// `LANES` half-precision numbers can be read at `p`.
    unsafe fn widen_f16(self, p: *const u16) -> Self::V;
    /// # Safety
    /// `LANES` bfloat16 numbers can be read at `p`.
    unsafe fn widen_bf16(self, p: *const u16) -> Self::V;

    /// Asks for the cache line at `p`, which need not exist, to be brought into the L2 cache, where stable Rust has an
    /// instruction for it.
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which no address can make fail, from the basic set of every such processor.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    /// As [`Simd::prefetch`], into the L1 cache, for what is used within some hundred steps.
    #[inline(always)]
    fn prefetch_near(self, p: *const u8) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c - a · b
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// 1 / v for normal v up to 2^126, to two units in the last place.
    #[inline(always)]
    fn reciprocal(self, v: Self::V) -> Self::V {
        self.div(self.splat(1.0), v)
    }
    /// v - ⌊v⌋
    fn fraction(self, v: Self::V) -> Self::V;
    /// x · 2^⌊n⌋ for n below 128, and not below -126 unless [`Simd::SCALES_TO_ZERO`].
    fn scale_exp2(self, x: Self::V, n: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// Largest of the lanes.
    fn largest(self, v: Self::V) -> f32;

    /// Each number rounded to the nearest bfloat16, of two equally near ones to the even one. NaN stays NaN.
    #[inline(always)]
    fn round_bf16(self, v: Self::V) -> Self::V {
        each_bits(self, v, |bits| {
            if bits & !SIGN > INFINITY {
                (bits | QUIET) & UPPER
            } else {
                (bits + HALF_BF16 + (bits >> 16 & 1)) & UPPER
            }
        })
    }
    /// The upper halves of the numbers, which are bfloat16 where they have been rounded.
    ///
    /// # Safety
    /// `LANES` halves can be written at `p`.
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: Self::V) {
        let bits = bits_of(self, v);
        for (i, bits) in bits.into_iter().take(Self::LANES).enumerate() {
            // SAFETY: vouched for by the caller.
            unsafe { *p.add(i) = (bits >> 16) as u16 }
        }
    }
    /// Words of two rounded numbers each, `first` in the lower half.
    #[inline(always)]
    fn join_pairs(self, first: Self::V, second: Self::V) -> Self::V {
        let (first, second) = (bits_of(self, first), bits_of(self, second));
        from_bits(self, std::array::from_fn(|i| first[i] >> 16 | second[i] & UPPER))
    }
    /// The first numbers of pairs and the second ones, as f32.
    #[inline(always)]
    fn split_pairs(self, pairs: Self::V) -> (Self::V, Self::V) {
        (
            each_bits(self, pairs, |bits| bits << 16),
            each_bits(self, pairs, |bits| bits & UPPER),
        )
    }

    /// Sixteen rows of sixteen numbers, `next_from` apart, as columns: number j of row i becomes number i of row j.
    ///
    /// # Safety
    /// They can be read at `from` and written at `to`, where rows lie `next_to` apart.
    #[inline(always)]
    unsafe fn transpose(self, (from, next_from): (*const f32, usize), (to, next_to): (*mut f32, usize)) {
        // SAFETY: passed on from the caller.
        unsafe { transpose_each((from, next_from, PANEL), (to, next_to, PANEL)) }
    }

    /// A product of at most [`Simd::PANELS`] panels, tile by tile of `rows` rows, 1 to [`Simd::ROWS`], which divides the
    /// number of rows. Every element is one chain of multiply-adds in the order of k, whatever the number of rows, so a
    /// row's result does not depend on its neighbours.
    ///
    /// # Safety
    /// The pointers of `product` are valid for the sizes that it states.
    unsafe fn tiles(self, product: Product, rows: usize);

    /// As [`Simd::tiles`], of words of two bfloat16 numbers: each adds the product of the second ones to a sum and then that
    /// of the first ones, with one rounding each. Products of such numbers are exact in f32, so it does not matter that the
    /// portable set rounds them; only where one lies below 2^-126 may a result differ.
    ///
    /// # Safety
    /// As [`Simd::tiles`].
    unsafe fn pair_tiles(self, product: Product, rows: usize);
}

/// The bits of f32: its sign, infinity, what tells a quiet NaN, the half that bfloat16 has, and half a unit of its last place.
const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const QUIET: u32 = 1 << 22;
const UPPER: u32 = 0xffff_0000;
const HALF_BF16: u32 = 0x7fff;

/// The bits of the lanes, and zeros.
#[inline(always)]
fn bits_of<S: Simd>(s: S, v: S::V) -> [u32; PANEL] {
    let mut numbers = [0.0_f32; PANEL];
    // SAFETY: there is room for every set's lanes.
    unsafe { s.store(numbers.as_mut_ptr(), v) };
    numbers.map(f32::to_bits)
}

/// The other way round.
#[inline(always)]
fn from_bits<S: Simd>(s: S, bits: [u32; PANEL]) -> S::V {
    let numbers = bits.map(f32::from_bits);
    // SAFETY: as many as any set has lanes.
    unsafe { s.load(numbers.as_ptr()) }
}

#[inline(always)]
fn each_bits<S: Simd>(s: S, v: S::V, f: impl Fn(u32) -> u32) -> S::V {
    from_bits(s, bits_of(s, v).map(f))
}

/// [`Simd::transpose`] number by number, for any count of rows and columns.
///
/// # Safety
/// They can be read at `from` and written at `to`.
#[inline(always)]
pub(crate) unsafe fn transpose_each(
    (from, next_from, rows): (*const f32, usize, usize),
    (to, next_to, columns): (*mut f32, usize, usize),
) {
    for i in 0..rows {
        for j in 0..columns {
            // SAFETY: vouched for by the caller.
            unsafe { *to.add(j * next_to + i) = *from.add(i * next_from + j) }
        }
    }
}

/// Work that is compiled once for every instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Implementations are `#[inline(always)]`, so that they take on the instruction set of their caller.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}
