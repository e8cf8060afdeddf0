//! The bodies of the two matrix kernels, for any instruction set; each set wraps them in functions that enable it.

use super::{Mix, PANEL, Simd, Tile};

/// `R` rows times `N` panels of `P` vectors each (`P` · LANES = 16), all accumulators in registers.
///
/// # Safety
/// As [`Simd::tile`], with `R` = `tile.rows` and `N` = `tile.panels`.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const R: usize, const N: usize, const P: usize>(s: S, tile: Tile<'_>) {
    debug_assert_eq!(P * S::LANES, PANEL);
    let Tile {
        a,
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
        for kk in 0..k {
            let mut weights = [[s.splat(0.0); P]; N];
            for (n, panel) in weights.iter_mut().enumerate() {
                for (j, v) in panel.iter_mut().enumerate() {
                    *v = s.load(w.add(n * next_w + kk * PANEL + j * S::LANES));
                }
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.get_unchecked(i).add(kk));
                for (panel, weights) in row.iter_mut().zip(weights) {
                    for (v, weight) in panel.iter_mut().zip(weights) {
                        *v = s.fma(x, weight, *v);
                    }
                }
            }
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

/// `R` rows times `P` vectors of values.
///
/// # Safety
/// As [`Simd::mix`], with `R` = `mix.rows` and `P` = `mix.vectors`.
#[inline(always)]
pub(super) unsafe fn mix<S: Simd, const R: usize, const P: usize>(s: S, mix: Mix) {
    let Mix {
        k,
        p,
        p_stride,
        v,
        o,
        o_stride,
        ..
    } = mix;
    let mut acc = [[s.splat(0.0); P]; R];
    // SAFETY: the caller vouches for `R` rows of O and P, and k rows of V, of the sizes read here.
    unsafe {
        for (i, row) in acc.iter_mut().enumerate() {
            for (j, x) in row.iter_mut().enumerate() {
                *x = s.load(o.add(i * o_stride + j * S::LANES));
            }
        }
        for kk in 0..k {
            let mut weights = [s.splat(0.0); R];
            for (i, x) in weights.iter_mut().enumerate() {
                *x = s.splat(*p.add(i * p_stride + kk));
            }
            for j in 0..P {
                let value = s.load(v[j].add(kk * PANEL));
                for (row, weight) in acc.iter_mut().zip(weights) {
                    row[j] = s.fma(weight, value, row[j]);
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                s.store(o.add(i * o_stride + j * S::LANES), *x);
            }
        }
    }
}

/// Writes what has to be compiled for an instruction set: the two dispatchers of [`Simd::tile`] and [`Simd::mix`] and,
/// where an attribute enables the set, `vectorize`, which runs a kernel under it. Given are that attribute, the token,
/// vectors in a panel, and the shapes (panels: rows) of the tiles that are compiled.
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
        compiled!(@mix #[$enable] $token);
    };
    ($token:ty, $panel:literal, $tiles:tt) => {
        compiled!(@tile $token, $panel, $tiles);
        compiled!(@mix $token);
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
    (@mix $(#[$enable:meta])? $token:ty) => {
        #[inline(always)]
        unsafe fn mix_of(s: $token, mix: crate::simd::Mix) {
            $(#[$enable])?
            unsafe fn shape<const R: usize, const P: usize>(s: $token, mix: crate::simd::Mix) {
                // SAFETY: passed on from the caller.
                unsafe { crate::simd::tile::mix::<$token, R, P>(s, mix) }
            }
            // SAFETY: the token proves the instructions; the rest is passed on from the caller.
            unsafe {
                match (mix.vectors, mix.rows) {
                    (5, 2) => shape::<2, 5>(s, mix),
                    (5, 1) => shape::<1, 5>(s, mix),
                    (4, 3) => shape::<3, 4>(s, mix),
                    (4, 2) => shape::<2, 4>(s, mix),
                    (4, 1) => shape::<1, 4>(s, mix),
                    (3, 4) => shape::<4, 3>(s, mix),
                    (3, 3) => shape::<3, 3>(s, mix),
                    (3, 2) => shape::<2, 3>(s, mix),
                    (3, 1) => shape::<1, 3>(s, mix),
                    (2, 6) => shape::<6, 2>(s, mix),
                    (2, 5) => shape::<5, 2>(s, mix),
                    (2, 4) => shape::<4, 2>(s, mix),
                    (2, 3) => shape::<3, 2>(s, mix),
                    (2, 2) => shape::<2, 2>(s, mix),
                    (2, 1) => shape::<1, 2>(s, mix),
                    (1, 6) => shape::<6, 1>(s, mix),
                    (1, 5) => shape::<5, 1>(s, mix),
                    (1, 4) => shape::<4, 1>(s, mix),
                    (1, 3) => shape::<3, 1>(s, mix),
                    (1, 2) => shape::<2, 1>(s, mix),
                    (1, 1) => shape::<1, 1>(s, mix),
                    _ => debug_assert!(false, "a mix of {} by {}", mix.rows, mix.vectors),
                }
            }
        }
    };
}
pub(super) use compiled;
