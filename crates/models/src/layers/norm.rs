//! Group and layer normalisation.

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

/// Group normalisation of (B, C, h, w).
#[derive(Debug)]
pub(crate) struct GroupNorm {
    /// (1, C, 1, 1)
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn new(groups: usize, width: usize, eps: f64, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get(width, "weight")?.reshape((1, width, 1, 1))?,
            bias: vb.get(width, "bias")?.reshape((1, width, 1, 1))?,
            groups,
            eps,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let x = x.reshape((b, self.groups, c / self.groups * h * w))?;
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        x.reshape((b, c, h, w))?
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)
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
