//! Multiply-adds between registers, without any memory: the speed that no kernel can exceed. Only
//! `examples/roofline.rs` calls it.

use std::hint::black_box;

use crate::isa::Isa;
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
