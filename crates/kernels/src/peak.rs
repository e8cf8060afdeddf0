//! Multiply-adds between registers, without any memory: the speed that no kernel can exceed. Only
//! `examples/roofline.rs` calls them.

use std::hint::black_box;

use crate::isa::Isa;
use crate::pairs::PairWork;
use crate::simd::{Kernel, Simd};

/// Computes `rounds` multiply-adds in each of `chains` independent chains of vectors: 6, 12 or 24. To be busy, a processor
/// needs as many chains as its latency times its units, and they have to fit into its registers. Returns the number of
/// operations, a multiply-add being two, and a number that depends on all of them.
#[must_use]
pub fn multiply_adds(isa: Isa, chains: usize, rounds: usize) -> (usize, f32) {
    match chains {
        0..=6 => isa.run(Chains::<6>(rounds)),
        7..=12 => isa.run(Chains::<12>(rounds)),
        _ => isa.run(Chains::<24>(rounds)),
    }
}

/// The same of pairs of bfloat16, by the unit of `isa` for them; None where it has none of its own. Tiles have four chains, since
/// so many sums fit beside what is multiplied.
#[must_use]
pub fn pair_multiply_adds(isa: Isa, chains: usize, rounds: usize) -> Option<(usize, f32)> {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (chains, rounds);
    match isa.pairs()?.begin() {
        // Which says nothing of the machine.
        PairWork::Reference(_) => None,
        #[cfg(target_arch = "x86_64")]
        PairWork::Avx512(token) => Some(match chains {
            0..=6 => token.dot_products::<6>(rounds),
            7..=12 => token.dot_products::<12>(rounds),
            _ => token.dot_products::<24>(rounds),
        }),
        #[cfg(target_arch = "x86_64")]
        PairWork::Amx(tiles) => Some(tiles.products(rounds)),
    }
}

struct Chains<const N: usize>(usize);

impl<const N: usize> Kernel for Chains<N> {
    type Output = (usize, f32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (usize, f32) {
        // Hidden from the compiler, which would otherwise compute the chains at compile time, or one instead of all.
        let (factor, term) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
        let mut sums = [(); N].map(|()| s.splat(black_box(0.0)));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, factor, term);
            }
        }
        let total = sums.into_iter().map(|sum| s.sum(sum)).sum();
        (2 * S::LANES * N * self.0, total)
    }
}
