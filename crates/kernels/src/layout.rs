//! Changes of layout between candle's (B, C, h, w) and ours, (B, h, w, C), and the concatenation of channels.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::buffer::{SharedPtr, written};
use crate::pool::for_each;
use crate::values::slice;

/// Pixels that are transposed at a time.
const PIXELS: usize = 64;

/// (B, C, h, w) to (B, h, w, C).
///
/// # Errors
/// When `x` has another rank or is not f32 on the CPU.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let transpose = Transpose {
        rows: b,
        outer: c,
        inner: h * w,
        shape: (b, h, w, c),
    };
    x.contiguous()?.apply_op1_no_bwd(&transpose)
}

/// (B, h, w, C) to (B, C, h, w).
///
/// # Errors
/// When `x` has another rank or is not f32 on the CPU.
pub fn channels_first(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let transpose = Transpose {
        rows: b,
        outer: h * w,
        inner: c,
        shape: (b, c, h, w),
    };
    x.contiguous()?.apply_op1_no_bwd(&transpose)
}

/// (rows, outer, inner) to (rows, inner, outer).
struct Transpose {
    rows: usize,
    outer: usize,
    inner: usize,
    shape: (usize, usize, usize, usize),
}

impl CustomOp1 for Transpose {
    fn name(&self) -> &'static str {
        "transpose-layout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let Self {
            rows,
            outer,
            inner,
            shape,
        } = *self;
        let pieces = inner.div_ceil(PIXELS);
        let fill = |out: *mut f32| {
            let out = SharedPtr::new(out);
            for_each(rows * pieces, |task| {
                let (row, first) = (task / pieces, task % pieces * PIXELS);
                let x = &x[row * outer * inner..][..outer * inner];
                for i in first..inner.min(first + PIXELS) {
                    // SAFETY: line `i` of the row's result is this task's alone.
                    let to = unsafe {
                        std::slice::from_raw_parts_mut(out.get().add((row * inner + i) * outer), outer)
                    };
                    for (to, x) in to.iter_mut().zip(x[i..].iter().step_by(inner)) {
                        *to = *x;
                    }
                }
            });
        };
        // SAFETY: every line is written.
        let out = unsafe { written(x.len(), fill) };
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }
}

/// (…, C1) and (…, C2) to (…, C1 + C2).
///
/// # Errors
/// When the other axes differ, or a tensor is not contiguous f32 on the CPU.
pub fn join_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.apply_op2_no_bwd(b, &Join)
}

struct Join;

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join-channels"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (Some((&ca, rows)), Some((&cb, b_rows))) =
            (a_layout.dims().split_last(), b_layout.dims().split_last())
        else {
            candle_core::bail!("joining numbers without channels")
        };
        if rows != b_rows || ca * cb == 0 {
            candle_core::bail!("joining {:?} and {:?}", a_layout.dims(), b_layout.dims())
        }
        let (a, b) = (slice(a, a_layout)?, slice(b, b_layout)?);
        let fill = |out: *mut f32| {
            let out = SharedPtr::new(out);
            a.par_chunks(ca)
                .zip(b.par_chunks(cb))
                .with_min_len(PIXELS)
                .enumerate()
                .for_each(|(i, (a, b))| {
                    // SAFETY: pixel `i` of the result is this task's alone.
                    let to = unsafe { std::slice::from_raw_parts_mut(out.get().add(i * (ca + cb)), ca + cb) };
                    to[..ca].copy_from_slice(a);
                    to[ca..].copy_from_slice(b);
                });
        };
        // SAFETY: every pixel is written.
        let out = unsafe { written(a.len() + b.len(), fill) };
        let mut shape = rows.to_vec();
        shape.push(ca + cb);
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same, noise};

    #[test]
    fn layouts_are_turned_as_candle_permutes_them() {
        for (b, c, h, w) in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 130, 9, 33)] {
            let x = noise(&[b, c, h, w], 1);
            let turned = channels_last(&x).unwrap();
            assert_same(
                "last",
                &turned,
                &x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap(),
            );
            assert_same("first", &channels_first(&turned).unwrap(), &x);
        }
    }

    #[test]
    fn channels_are_joined_in_order() {
        let (a, b) = (noise(&[2, 3, 5, 7], 1), noise(&[2, 3, 5, 4], 2));
        assert_same(
            "joined",
            &join_channels(&a, &b).unwrap(),
            &Tensor::cat(&[&a, &b], 3).unwrap(),
        );
        assert!(join_channels(&a, &noise(&[2, 3, 4, 4], 1)).is_err());
    }
}
