//! The body of the matrix kernel, for any instruction set; each set wraps it in functions that enable it.

use super::{Accumulate, PANEL, Prefetch, Product, Rows, Simd};

/// What is done for each number of the inner dimension, or each word of two.
pub(super) trait Step<S: Simd>: Copy {
    /// The sum that follows `sum`.
    fn add(self, s: S, x: S::V, weight: S::V, sum: S::V) -> S::V;
}

/// A product of f32.
#[derive(Clone, Copy)]
pub(super) struct Numbers;

/// The vectors of a token, and its step for f32.
#[inline(always)]
pub(super) fn numbers<S: Simd>(s: S) -> (S, Numbers) {
    (s, Numbers)
}

impl<S: Simd> Step<S> for Numbers {
    #[inline(always)]
    fn add(self, s: S, x: S::V, weight: S::V, sum: S::V) -> S::V {
        s.fma(x, weight, sum)
    }
}

/// Two products of bfloat16, by the instructions of f32.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

/// The vectors of a token, and its step for pairs.
#[inline(always)]
pub(super) fn pairs<S: Simd>(s: S) -> (S, Pairs) {
    (s, Pairs)
}

impl<S: Simd> Step<S> for Pairs {
    #[inline(always)]
    fn add(self, s: S, x: S::V, weight: S::V, sum: S::V) -> S::V {
        let ((x, x_second), (weight, weight_second)) = (s.split_pairs(x), s.split_pairs(weight));
        s.fma(x, weight, s.fma(x_second, weight_second, sum))
    }
}

/// A product whose rows are taken `R` at a time and whose panels are `N`, of `P` vectors each (`P` · LANES = 16): the
/// sums of `R` rows and all panels in registers.
///
/// # Safety
/// As [`Simd::tiles`], with `R` = `rows` and `N` = `product.panels`.
#[inline(always)]
pub(super) unsafe fn tiles<S: Simd, O: Step<S>, const R: usize, const N: usize, const P: usize>(
    s: S,
    step: O,
    product: Product,
) {
    debug_assert_eq!(P * S::LANES, PANEL);
    debug_assert!(product.panels == N && product.a.count.is_multiple_of(R));
    let Product {
        a:
            Rows {
                mut first,
                stride: next_a,
                step: next_x,
                count,
            },
        k,
        w,
        next_w,
        mut c,
        stride,
        next_c,
        accumulate,
        mut prefetch,
        ..
    } = product;
    for tile in 0..count / R {
        let mut acc = [[[s.splat(0.0); P]; N]; R];
        // SAFETY: the caller vouches for the rows of C and A, and k rows of each panel of W, of the sizes read here.
        unsafe {
            let mut a = [first; R];
            for (i, a) in a.iter_mut().enumerate() {
                *a = first.add(i * next_a);
            }
            if accumulate == Accumulate::Continue {
                for (i, row) in acc.iter_mut().enumerate() {
                    for (n, panel) in row.iter_mut().enumerate() {
                        for (j, v) in panel.iter_mut().enumerate() {
                            *v = s.load(c.add(i * stride + n * next_c + j * S::LANES));
                        }
                    }
                }
            }
            let mut at = 0;
            // Where nothing is left to prefetch, the weights at hand are: an instruction costs nothing here, a branch would.
            if tile == prefetch.tiles {
                prefetch = Prefetch {
                    first: w.cast(),
                    ..Prefetch::NONE
                };
            }
            let mut line = prefetch.first;
            for kk in 0..k {
                s.prefetch(line);
                line = line.wrapping_add(prefetch.step);
                let mut weights = [[s.splat(0.0); P]; N];
                for (n, panel) in weights.iter_mut().enumerate() {
                    for (j, v) in panel.iter_mut().enumerate() {
                        *v = s.load(w.add(n * next_w + kk * PANEL + j * S::LANES));
                    }
                }
                for (a, row) in a.iter().zip(&mut acc) {
                    let x = s.splat(*a.add(at));
                    for (panel, weights) in row.iter_mut().zip(weights) {
                        for (v, weight) in panel.iter_mut().zip(weights) {
                            *v = step.add(s, x, weight, *v);
                        }
                    }
                }
                at += next_x;
            }
            for (i, row) in acc.into_iter().enumerate() {
                for (n, panel) in row.into_iter().enumerate() {
                    for (j, v) in panel.into_iter().enumerate() {
                        let c = c.add(i * stride + n * next_c + j * S::LANES);
                        let added = accumulate == Accumulate::Add;
                        s.store(c, if added { s.add(s.load(c), v) } else { v });
                    }
                }
            }
            // After the last tile these may point outside of the operands; nothing is read there.
            first = first.wrapping_add(R * next_a);
            prefetch.first = prefetch.first.wrapping_add(prefetch.next);
            c = c.wrapping_add(R * stride);
        }
    }
}

/// Writes what has to be compiled for an instruction set: the dispatcher of [`Simd::tiles`] and, where an
/// attribute enables the set, `vectorize`, which runs a kernel under it; the same of [`Simd::pair_tiles`]. Given are that attribute, the token, vectors in
/// a panel, and the shapes (panels: rows) of the tiles that are compiled.
macro_rules! compiled {
    (#[$enable:meta] $token:ty, $panel:literal, $tiles:tt) => {
        impl $token {
            pub(crate) fn vectorize<K: crate::simd::Kernel>(self, kernel: K) -> K::Output {
                #[$enable]
                fn enabled<K: crate::simd::Kernel>(s: $token, kernel: K) -> K::Output {
                    kernel.run(s)
                }
                // SAFETY: the token proves the instructions.
                unsafe { enabled(self, kernel) }
            }
        }
        compiled!(@both #[$enable] $token, $panel, $tiles);
    };
    ($token:ty, $panel:literal, $tiles:tt) => {
        compiled!(@both $token, $panel, $tiles);
    };
    (@both $(#[$enable:meta])? $token:ty, $panel:literal, $tiles:tt) => {
        compiled!(@tile tiles_of, crate::simd::tile::numbers, $(#[$enable])? $token, $panel, $tiles);
        compiled!(@tile pair_tiles_of, crate::simd::tile::pairs, $(#[$enable])? $token, $panel, $tiles);
    };
    (@tile $name:ident, $step:path, $(#[$enable:meta])? $token:ty, $panel:literal, [$($panels:literal: $rows:literal),*]) => {
        #[inline(always)]
        unsafe fn $name(s: $token, product: crate::simd::Product, rows: usize) {
            $(#[$enable])?
            unsafe fn shape<const R: usize, const N: usize>(s: $token, product: crate::simd::Product) {
                let (s, step) = $step(s);
                // SAFETY: passed on from the caller.
                unsafe { crate::simd::tile::tiles::<_, _, R, N, $panel>(s, step, product) }
            }
            // SAFETY: the token proves the instructions; the rest is passed on from the caller.
            unsafe {
                match (product.panels, rows) {
                    $(($panels, $rows) => shape::<$rows, $panels>(s, product),)*
                    _ => debug_assert!(false, "a tile of {rows} by {}", product.panels),
                }
            }
        }
    };
}
pub(super) use compiled;
