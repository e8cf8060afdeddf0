//! Products of bfloat16 numbers with sums in f32, two terms of a sum at a time, as the matrix units of processors have them.
//!
//! A pair is two numbers that follow each other in the inner dimension, the first in the lower half of a word of 32 bits. The
//! left operand is rows of pairs; the right one is panels of 16 columns, \[pair\]\[16\]: what an instruction of AVX-512 multiplies
//! by a broadcast pair, and sixteen lines of it are a tile of AMX.
//!
//! A number of f32 can be [split](narrow) into a high part, itself rounded to bfloat16, and a low part, the rest rounded. The
//! products high · low, high · high and low · high then make that of the numbers to about 2^-17 of its terms.

#[cfg(target_arch = "x86_64")]
mod amx;
mod reference;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use self::amx::Amx;

#[cfg(target_arch = "x86_64")]
use crate::simd::avx512bf16::Avx512Bf16;
use crate::simd::{LINE, PANEL, PairTiles, Product, Simd};

/// Inner dimensions are filled up with zeros to a multiple of so many numbers, the width of a tile of AMX.
pub(crate) const STEP: usize = 32;

/// The same in pairs.
pub(crate) const PAIRS: usize = STEP / 2;

/// Rows of a tile of AMX. So many rows of a left operand can be read where there is one.
pub(crate) const ROWS: usize = 16;

/// What weights are packed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are stored.
    Stored,
    /// Pairs of bfloat16.
    Pairs,
}

/// The order in which the terms of a sum are added, which the result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `vdpbf16ps` of AVX-512: pair by pair, the product of the second numbers first, then that of the first, each added to
    /// the sum with one rounding to the nearest even number.
    Chain,
    /// `tdpbf16ps` of AMX: of sixteen pairs the products of the first numbers in one chain from zero and those of the second
    /// in another; then the sum of both chains is added to the sum.
    Tile,
}

/// How numbers are rounded to bfloat16: a machine's own instruction makes zero of those below 2^-126.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounding {
    Numbers,
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Bf16),
}

/// What multiplies pairs.
///
/// The instructions take numbers below 2^-126 for zero and make zero of such sums; the references, which compute with the
/// processor's f32, do not. Apart from that and the bits of NaN a reference gives the bits of its instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PairUnit {
    /// Instructions of f32, in the order of another unit.
    Reference(Order),
    /// `vdpbf16ps`
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Bf16),
    /// `tdpbf16ps`
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

/// A unit that is ready for products on this thread: during one task.
#[derive(Debug)]
pub(crate) enum PairWork {
    Reference(Order),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Bf16),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::Tiles),
}

impl PairUnit {
    /// Makes it ready.
    #[inline(always)]
    pub(crate) fn begin(self) -> PairWork {
        match self {
            Self::Reference(order) => PairWork::Reference(order),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => PairWork::Avx512(token),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(token) => PairWork::Amx(amx::Tiles::new(token)),
        }
    }

    /// Asks the operating system for what it needs. Says whether this process may use it.
    pub(crate) fn permit(self) -> bool {
        match self {
            Self::Reference(_) => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => true,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(token) => token.permit(),
        }
    }

    /// The order of its sums.
    pub(crate) fn order(self) -> Order {
        match self {
            Self::Reference(order) => order,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Order::Chain,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Order::Tile,
        }
    }

    /// Rows that are multiplied at once.
    pub(crate) fn rows(self) -> usize {
        self.order().rows()
    }

    /// How its operands are rounded.
    #[inline(always)]
    pub(crate) fn rounding(self) -> Rounding {
        match self {
            Self::Reference(_) => Rounding::Numbers,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => Rounding::Avx512(token),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(token) => Rounding::Avx512(token.avx512()),
        }
    }
}

impl Order {
    fn rows(self) -> usize {
        match self {
            Self::Chain => 12,
            Self::Tile => 2 * ROWS,
        }
    }
}

impl PairWork {
    /// As [`PairUnit::rows`].
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Reference(order) => order.rows(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Order::Chain.rows(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Order::Tile.rows(),
        }
    }

    /// As [`PairUnit::rounding`].
    #[inline(always)]
    pub(crate) fn rounding(&self) -> Rounding {
        match self {
            Self::Reference(_) => Rounding::Numbers,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => Rounding::Avx512(*token),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(tiles) => Rounding::Avx512(tiles.avx512()),
        }
    }
}

/// A product of pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairProduct {
    /// Of words of two numbers, behind pointers to f32. The inner dimension is a multiple of [`PAIRS`], and rows can be read
    /// up to a multiple of [`ROWS`].
    pub(crate) product: Product,
    /// The low parts of both operands, laid out as the high ones, where they are split. In [`Order::Tile`] only.
    pub(crate) low: Option<(*const f32, *const f32)>,
}

impl PairProduct {
    /// # Safety
    /// The pointers are valid for the sizes that are stated.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(self, s: S, work: &PairWork) {
        debug_assert!(self.product.k.is_multiple_of(PAIRS));
        // SAFETY: passed on from the caller.
        unsafe {
            match work {
                PairWork::Reference(Order::Chain) => self.product.run_by(PairTiles(s)),
                PairWork::Reference(Order::Tile) => reference::run(s, self),
                #[cfg(target_arch = "x86_64")]
                PairWork::Avx512(token) => self.product.run_by(*token),
                #[cfg(target_arch = "x86_64")]
                PairWork::Amx(tiles) => tiles.run(self),
            }
        }
    }
}

/// Where the parts of an operand go: the high one and, where it is split, the low one. Both are bfloat16 numbers, behind
/// pointers to words of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) high: *mut f32,
    pub(crate) low: Option<*mut f32>,
}

impl Parts {
    /// The parts `words` further on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    pub(crate) unsafe fn at(self, words: usize) -> Self {
        // SAFETY: vouched for by the caller.
        unsafe {
            Self {
                high: self.high.add(words),
                low: self.low.map(|low| low.add(words)),
            }
        }
    }

    /// Without the low one.
    pub(crate) fn only_high(self) -> Self {
        Self { low: None, ..self }
    }
}

/// Rounds `count` numbers to bfloat16 and fills up with zeros to `padded`, a multiple of [`STEP`].
///
/// # Safety
/// The numbers can be read, and half as many words written in each part.
#[inline(always)]
pub(crate) unsafe fn narrow<S: Simd>(
    s: S,
    rounding: Rounding,
    from: *const f32,
    (count, padded): (usize, usize),
    to: Parts,
) {
    #[cfg(target_arch = "x86_64")]
    if let Rounding::Avx512(token) = rounding {
        let to = (to.high.cast(), to.low.map(<*mut f32>::cast));
        // SAFETY: passed on from the caller.
        return unsafe { token.narrow(from, (count, padded), to) };
    }
    let _ = rounding;
    let whole = count / S::LANES * S::LANES;
    for at in (0..padded).step_by(S::LANES) {
        // SAFETY: vouched for by the caller.
        unsafe {
            let v = if at < whole {
                s.load(from.add(at))
            } else {
                let mut numbers = [0.0_f32; PANEL];
                for (i, number) in numbers.iter_mut().enumerate().take(count.saturating_sub(at)) {
                    *number = *from.add(at + i);
                }
                s.load(numbers.as_ptr())
            };
            let high = s.round_bf16(v);
            s.store_bf16(to.high.cast::<u16>().add(at), high);
            if let Some(low) = to.low {
                s.store_bf16(low.cast::<u16>().add(at), s.round_bf16(s.sub(v, high)));
            }
        }
    }
}

/// Rounds a panel of `rows` rows of 16 numbers and joins them in pairs, row 2 i with row 2 i + 1, filled up with zeros to
/// `padded` rows, a multiple of two.
///
/// # Safety
/// The rows can be read, and half as many written in each part.
#[inline(always)]
pub(crate) unsafe fn interleave<S: Simd>(
    s: S,
    rounding: Rounding,
    from: *const f32,
    (rows, padded): (usize, usize),
    to: Parts,
) {
    #[cfg(target_arch = "x86_64")]
    if let Rounding::Avx512(token) = rounding {
        // SAFETY: passed on from the caller.
        return unsafe { token.interleave(from, (rows, padded), (to.high, to.low)) };
    }
    let _ = rounding;
    let zero = s.splat(0.0);
    for pair in 0..padded / 2 {
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: vouched for by the caller.
            unsafe {
                let (mut first, mut second) = (zero, zero);
                if 2 * pair < rows {
                    first = s.load(from.add(2 * pair * PANEL + lane));
                }
                if 2 * pair + 1 < rows {
                    second = s.load(from.add((2 * pair + 1) * PANEL + lane));
                }
                let (first_high, second_high) = (s.round_bf16(first), s.round_bf16(second));
                let at = pair * PANEL + lane;
                s.store(to.high.add(at), s.join_pairs(first_high, second_high));
                if let Some(low) = to.low {
                    let first = s.round_bf16(s.sub(first, first_high));
                    let second = s.round_bf16(s.sub(second, second_high));
                    s.store(low.add(at), s.join_pairs(first, second));
                }
            }
        }
    }
}

const _: () = assert!(PANEL * size_of::<u32>() == LINE);
