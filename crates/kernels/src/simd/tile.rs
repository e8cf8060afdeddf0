//! The body of the matrix kernel, for any instruction set; each set wraps it in functions that enable it.

use super::{PANEL, Simd, Tile};

/// `R` rows times `N` panels of `P` vectors each (`P` · LANES = 16), all accumulators in registers.
///
/// # Safety
/// As [`Simd::tile`], with `R` = `tile.rows` and `N` = `tile.panels`.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const R: usize, const N: usize, const P: usize>(s: S, tile: Tile<'_>) {
    debug_assert_eq!(P * S::LANES, PANEL);
    let Tile {
        a,
        step,
        k,
        w,
        next_w,
        c,
        stride,
        next_c,
        accumulate,
        ..
    } = tile;
    let mut acc = [[[s.splat(0.0); P]; N]; R];
    // SAFETY: the caller vouches for `R` rows of C and A, and k rows of each panel of W, of the sizes read here.
    unsafe {
        if accumulate {
            for (i, row) in acc.iter_mut().enumerate() {
                for (n, panel) in row.iter_mut().enumerate() {
                    for (j, v) in panel.iter_mut().enumerate() {
                        *v = s.load(c.add(i * stride + n * next_c + j * S::LANES));
                    }
                }
            }
        }
        let mut at = 0;
        for kk in 0..k {
            let mut weights = [[s.splat(0.0); P]; N];
            for (n, panel) in weights.iter_mut().enumerate() {
                for (j, v) in panel.iter_mut().enumerate() {
                    *v = s.load(w.add(n * next_w + kk * PANEL + j * S::LANES));
                }
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.get_unchecked(i).add(at));
                for (panel, weights) in row.iter_mut().zip(weights) {
                    for (v, weight) in panel.iter_mut().zip(weights) {
                        *v = s.fma(x, weight, *v);
                    }
                }
            }
            at += step;
        }
        for (i, row) in acc.iter().enumerate() {
            for (n, panel) in row.iter().enumerate() {
                for (j, v) in panel.iter().enumerate() {
                    s.store(c.add(i * stride + n * next_c + j * S::LANES), *v);
                }
            }
        }
    }
}

/// Writes what has to be compiled for an instruction set: the dispatcher of [`Simd::tile`] and, where an
/// attribute enables the set, `vectorize`, which runs a kernel under it. Given are that attribute, the token, vectors in
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
        compiled!(@tile #[$enable] $token, $panel, $tiles);
    };
    ($token:ty, $panel:literal, $tiles:tt) => {
        compiled!(@tile $token, $panel, $tiles);
    };
    (@tile $(#[$enable:meta])? $token:ty, $panel:literal, [$($panels:literal: $rows:literal),*]) => {
        #[inline(always)]
        unsafe fn tile_of(s: $token, tile: crate::simd::Tile<'_>) {
            $(#[$enable])?
            unsafe fn shape<const R: usize, const N: usize>(s: $token, tile: crate::simd::Tile<'_>) {
                // SAFETY: passed on from the caller.
                unsafe { crate::simd::tile::tile::<$token, R, N, $panel>(s, tile) }
            }
            // SAFETY: the token proves the instructions; the rest is passed on from the caller.
            unsafe {
                match (tile.panels, tile.rows) {
                    $(($panels, $rows) => shape::<$rows, $panels>(s, tile),)*
                    _ => debug_assert!(false, "a tile of {} by {}", tile.rows, tile.panels),
                }
            }
        }
    };
}
pub(super) use compiled;
