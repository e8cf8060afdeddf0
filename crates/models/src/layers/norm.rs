//! Group and layer normalisation.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

/// Group normalisation (Wu and He, 2018) of (B, C, h, w).
#[derive(Debug)]
pub(crate) struct GroupNorm {
    /// (C,)
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn new(groups: usize, width: usize, eps: f64, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get(width, "weight")?,
            bias: vb.get(width, "bias")?,
            groups,
            eps,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.normalise(x, false)
    }

    /// The norm and then x · sigmoid(x), in one pass over the tensor where the device allows it.
    pub(crate) fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.normalise(x, true)
    }

    fn normalise(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        if !(x.device().is_cpu() && x.dtype() == DType::F32) {
            let y = self.composed(x)?;
            return if silu { y.silu() } else { Ok(y) };
        }
        let op = GroupNormOp {
            groups: self.groups,
            eps: self.eps,
            silu,
        };
        x.contiguous()?.apply_op3_no_bwd(&self.weight, &self.bias, &op)
    }

    /// The same from candle's own operations, for every device and dtype: six passes and as many buffers.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let x = x.reshape((b, self.groups, c / self.groups * h * w))?;
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        x.reshape((b, c, h, w))?
            .broadcast_mul(&self.weight.reshape((1, c, 1, 1))?)?
            .broadcast_add(&self.bias.reshape((1, c, 1, 1))?)
    }
}

/// Group norm of a contiguous f32 tensor on the CPU. Each group of each row is one task, so nothing depends on the
/// number of rows or threads.
struct GroupNormOp {
    groups: usize,
    eps: f64,
    silu: bool,
}

impl CustomOp3 for GroupNormOp {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = x_layout.shape();
        let (_, c, h, w) = shape.dims4()?;
        let (x, weight, bias) = (
            values(x, x_layout)?,
            values(weight, weight_layout)?,
            values(bias, bias_layout)?,
        );
        let (pixels, channels) = (h * w, c / self.groups);
        let length = channels * pixels;
        let mut out = vec![0.0_f32; x.len()];
        out.par_chunks_mut(length)
            .zip(x.par_chunks(length))
            .enumerate()
            .for_each(|(task, (out, x))| {
                let first = task % self.groups * channels;
                let affine = (&weight[first..first + channels], &bias[first..first + channels]);
                self.group(out, x, affine, pixels);
            });
        Ok((CpuStorage::F32(out), shape.clone()))
    }
}

impl GroupNormOp {
    fn group(&self, out: &mut [f32], x: &[f32], (weight, bias): (&[f32], &[f32]), pixels: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a count of elements is far below 2^52")]
        let count = x.len() as f64;
        let mean = sum(x, |v| v) / count;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / count;
        let scale = (variance + self.eps).sqrt().recip();
        for (channel, (out, x)) in out.chunks_mut(pixels).zip(x.chunks(pixels)).enumerate() {
            let a = f64::from(weight[channel]) * scale;
            #[expect(clippy::cast_possible_truncation, reason = "the tensor is f32")]
            let (a, b) = (a as f32, (f64::from(bias[channel]) - mean * a) as f32);
            for (out, x) in out.iter_mut().zip(x) {
                let y = x * a + b;
                *out = if self.silu { y / (1.0 + (-y).exp()) } else { y };
            }
        }
    }
}

/// The sum of `term` over all elements, in f64 and in eight lanes that the compiler can keep in registers.
fn sum(x: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let (blocks, tail) = x.as_chunks::<8>();
    let mut lanes = [0.0_f64; 8];
    for block in blocks {
        for (lane, v) in lanes.iter_mut().zip(block) {
            *lane += term(f64::from(*v));
        }
    }
    lanes.iter().sum::<f64>() + tail.iter().map(|v| term(f64::from(*v))).sum::<f64>()
}

/// The elements of a contiguous f32 tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("group norm of a tensor that is not contiguous"),
    }
}

/// Layer normalisation over the last axis of (B, T, D).
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub(crate) fn new(width: usize, eps: f32, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get(width, "weight")?,
            bias: vb.get(width, "bias")?,
            eps,
        })
    }

    /// `x` is contiguous.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use pentimento_testkit::{Tolerance, assert_close};

    use super::*;

    #[test]
    fn one_pass_equals_the_composed_operations() {
        let wave = |shape: &[usize], factor: f32| {
            let count: usize = shape.iter().product();
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let values: Vec<f32> = (0..count)
                .map(|i| (i as f32 * factor).sin() * 3.0 + 1.0)
                .collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let norm = GroupNorm {
            weight: wave(&[12], 0.3),
            bias: wave(&[12], 0.5),
            groups: 3,
            eps: 1e-5,
        };
        for (b, h, w) in [(1, 1, 1), (2, 3, 5), (3, 8, 8), (1, 33, 1)] {
            let x = wave(&[b, 12, h, w], 0.77);
            let expected = norm.composed(&x).unwrap();
            let close = Tolerance {
                max: 2e-6,
                mean: 4e-7,
            };
            assert_close("norm", &norm.forward(&x).unwrap(), &expected, close);
            assert_close(
                "silu",
                &norm.forward_silu(&x).unwrap(),
                &expected.silu().unwrap(),
                close,
            );
            let view = x.transpose(2, 3).unwrap();
            assert_close(
                "view",
                &norm.forward(&view).unwrap(),
                &norm.composed(&view).unwrap(),
                close,
            );
        }
    }
}
