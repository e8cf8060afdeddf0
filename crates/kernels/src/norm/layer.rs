//! Layer normalisation (Ba, Kiros and Hinton, 2016) over the last axis.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::buffer::{SharedPtr, written};
use crate::isa::Isa;
use crate::pool::for_each;
use crate::simd::{Kernel, Simd};
use crate::values::{slice, to_f32s};

/// Rows of a task.
const ROWS: usize = 32;

/// A layer norm.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// A norm over D = `weight`'s length numbers.
    ///
    /// # Errors
    /// When weight and bias differ in length.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Self> {
        let (weight, bias) = (to_f32s(weight)?, to_f32s(bias)?);
        if weight.len() != bias.len() || weight.is_empty() {
            candle_core::bail!("a norm of {} weights and {} biases", weight.len(), bias.len())
        }
        Ok(Self { weight, bias, eps })
    }

    /// Bytes that weight and bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.weight.capacity() + self.bias.capacity()) * size_of::<f32>()
    }

    /// `x`: (…, D), contiguous f32.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is not contiguous f32 on the CPU.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(Isa::detect(), x)
    }

    pub(super) fn forward_with(&self, isa: Isa, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&LayerNormOp { norm: self, isa })
    }
}

struct LayerNormOp<'a> {
    norm: &'a LayerNorm,
    isa: Isa,
}

impl CustomOp1 for LayerNormOp<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = self.norm.weight.len();
        if layout.dims().last() != Some(&width) {
            candle_core::bail!("a layer norm of {width} numbers got {:?}", layout.dims())
        }
        let x = slice(x, layout)?;
        let fill = |out: *mut f32| {
            let out = SharedPtr::new(out);
            let piece = ROWS * width;
            for_each(x.len().div_ceil(piece.max(1)), |task| {
                let start = task * piece;
                self.isa.run(Normalise {
                    norm: self.norm,
                    x: &x[start..x.len().min(start + piece)],
                    out: out.get().wrapping_add(start),
                });
            });
        };
        // SAFETY: every row is written.
        let out = unsafe { written(x.len(), fill) };
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

struct Normalise<'a> {
    norm: &'a LayerNorm,
    x: &'a [f32],
    out: *mut f32,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LayerNorm { weight, bias, eps } = self.norm;
        let width = weight.len();
        #[expect(clippy::cast_precision_loss, reason = "a width is small")]
        let count = width as f32;
        let whole = width / S::LANES * S::LANES;
        for (row, x) in self.x.chunks_exact(width).enumerate() {
            let mean = about(s, x, 0.0).0 / count;
            let inverse = (about(s, x, mean).1 / count + eps).sqrt().recip();
            // SAFETY: the row is part of the result, and all four have `width` numbers.
            unsafe {
                let out = self.out.add(row * width);
                for i in (0..whole).step_by(S::LANES) {
                    let d = s.sub(s.load(x.as_ptr().add(i)), s.splat(mean));
                    let y = s.mul(d, s.splat(inverse));
                    let y = s.fma(y, s.load(weight.as_ptr().add(i)), s.load(bias.as_ptr().add(i)));
                    s.store(out.add(i), y);
                }
                for i in whole..width {
                    *out.add(i) = (x[i] - mean) * inverse * weight[i] + bias[i];
                }
            }
        }
    }
}

/// The sum of the differences from `mean`, and the sum of their squares.
#[inline(always)]
fn about<S: Simd>(s: S, x: &[f32], mean: f32) -> (f32, f32) {
    let (middle, mut sum, mut squares) = (s.splat(mean), s.splat(0.0), s.splat(0.0));
    let whole = x.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: `i` and the lanes after it are within the row.
        let d = s.sub(unsafe { s.load(x.as_ptr().add(i)) }, middle);
        sum = s.add(sum, d);
        squares = s.fma(d, d, squares);
    }
    let (mut sum, mut squares) = (s.sum(sum), s.sum(squares));
    for v in &x[whole..] {
        sum += v - mean;
        squares += (v - mean) * (v - mean);
    }
    (sum, squares)
}
