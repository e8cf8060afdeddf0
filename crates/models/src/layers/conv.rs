//! 3x3 convolutions, in one pass with what the networks have before and after them.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels as kernels;

use super::norm::GroupNorm;
use super::patch::{LayerPatch, needed};
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// Stride and padding, of which the networks have three combinations.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stride {
    /// Stride 1, one pixel of padding on every side: keeps the size.
    One,
    /// Stride 2, one pixel of padding on every side, as in the UNet: halves the size, rounding up.
    Two,
    /// Stride 2, one pixel of padding at the right and the bottom only, as in the VAE: halves the size, rounding down.
    TwoPaddedAfter,
}

impl Stride {
    fn kernel(self, weight: &Tensor, bias: &Tensor) -> Result<kernels::Conv2d> {
        let (stride, padding) = match self {
            Self::One => (1, kernels::Padding::SAME),
            Self::Two => (2, kernels::Padding::SAME),
            Self::TwoPaddedAfter => (2, kernels::Padding { before: 0, after: 1 }),
        };
        kernels::Conv2d::new(weight, bias, stride, padding)
    }
}

/// A 3x3 convolution.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    spec: LayerSpec,
    stride: Stride,
    kernel: Arc<kernels::Conv2d>,
}

/// What is computed in one pass with a convolution.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConvFusion<'a> {
    /// A norm of the input, followed by SiLU.
    pub(crate) norm: Option<&'a GroupNorm>,
    /// The size (h, w) to which the input is enlarged before the convolution, each pixel from its nearest neighbour.
    pub(crate) upsample: Option<(usize, usize)>,
    /// (B, 1, outputs), added to all pixels of a row.
    pub(crate) row_bias: Option<&'a Tensor>,
    /// (B, h', w', outputs), added to the result.
    pub(crate) residual: Option<&'a Tensor>,
}

impl Conv2d {
    /// `inputs` to `outputs` channels.
    pub(crate) fn new(inputs: usize, outputs: usize, stride: Stride, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::read((inputs, outputs, true), stride, vb)
    }

    /// As [`Conv2d::new`], without a bias.
    pub(crate) fn without_bias(
        inputs: usize,
        outputs: usize,
        stride: Stride,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        Self::read((inputs, outputs, false), stride, vb)
    }

    fn read(
        (inputs, outputs, bias): (usize, usize, bool),
        stride: Stride,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Conv2d,
            inputs,
            outputs,
            bias,
        };
        let spec = LayerSpec::at(vb, shape);
        let bias = if bias {
            spec.bias(vb)?
        } else {
            Tensor::zeros(outputs, DType::F32, vb.device())?
        };
        let kernel = Arc::new(stride.kernel(&spec.weight(vb)?, &bias)?);
        Ok(Self { spec, stride, kernel })
    }

    /// `x`: (B, h, w, inputs). Result: (B, h', w', outputs).
    pub(crate) fn forward(&self, x: &Tensor, fusion: ConvFusion<'_>) -> Result<Tensor> {
        let norm = fusion.norm.map(|norm| norm.before_conv(x)).transpose()?;
        let fusion = kernels::ConvFusion {
            norm: norm.as_ref(),
            upsample: fusion.upsample,
            row_bias: fusion.row_bias,
            residual: fusion.residual,
        };
        self.kernel.forward(x, fusion)
    }
}

impl Layer for Conv2d {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        let (weight, bias) = patch.weights()?;
        self.kernel = Arc::new(self.stride.kernel(&weight, &needed(bias)?)?);
        Ok(self.size_bytes())
    }
}
