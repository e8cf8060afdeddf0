//! 3x3 convolutions and nearest-neighbour upsampling.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// A 3x3 convolution on (B, C, h, w).
#[derive(Debug)]
pub(crate) struct Conv {
    weight: Tensor,
    /// (1, out, 1, 1)
    bias: Tensor,
    stride: usize,
    padding: usize,
}

impl Conv {
    /// Keeps the size.
    pub(crate) fn same(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::new(input, output, vb)
    }

    /// Halves the size, rounding up, with one pixel of padding on every side, as the UNet does.
    pub(crate) fn halving(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            stride: 2,
            ..Self::new(width, width, vb)?
        })
    }

    /// Halves the size, rounding down, with one pixel of padding at the right and the bottom only, as the VAE does.
    pub(crate) fn halving_after_right_bottom_pad(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            stride: 2,
            padding: 0,
            ..Self::new(width, width, vb)?
        })
    }

    fn new(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get((output, input, 3, 3), "weight")?,
            bias: vb.get(output, "bias")?.reshape((1, output, 1, 1))?,
            stride: 1,
            padding: 1,
        })
    }

    /// (B, C, h, w) to (B, out, h', w').
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = if self.padding == 0 {
            let x = x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
            x.conv2d(&self.weight, 0, self.stride, 1, 1)?
        } else {
            x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?
        };
        y.broadcast_add(&self.bias)
    }
}

/// Nearest-neighbour upsampling of (B, C, h, w) to exactly `size`, as PyTorch's `interpolate`.
pub(crate) fn upsample_to(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    x.upsample_nearest2d(size.0, size.1)
}
