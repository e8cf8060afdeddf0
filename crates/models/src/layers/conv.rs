//! 3x3 convolutions, in one pass with what the networks have before and after them.

use std::sync::Arc;

use pentimento_kernels::{self as kernels, HostTensor, LayerSource, Result, Tensor};

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
    fn kernel(
        self,
        weight: &HostTensor,
        bias: Option<&HostTensor>,
        spec: &LayerSpec,
    ) -> Result<kernels::Conv2d> {
        let how = match self {
            Self::One => (1, kernels::Padding::SAME),
            Self::Two => (2, kernels::Padding::SAME),
            Self::TwoPaddedAfter => (2, kernels::Padding { before: 0, after: 1 }),
        };
        kernels::Conv2d::new(weight, bias, how, &spec.device)
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
    pub(crate) fn new(inputs: usize, outputs: usize, stride: Stride, from: &LayerSource<'_>) -> Result<Self> {
        Self::read((inputs, outputs, true), stride, from)
    }

    /// As [`Conv2d::new`], without a bias.
    pub(crate) fn without_bias(
        inputs: usize,
        outputs: usize,
        stride: Stride,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        Self::read((inputs, outputs, false), stride, from)
    }

    fn read(
        (inputs, outputs, bias): (usize, usize, bool),
        stride: Stride,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Conv2d,
            inputs,
            outputs,
            bias,
        };
        let spec = LayerSpec::at(from, shape);
        let bias = bias.then(|| spec.bias(from)).transpose()?;
        let kernel = stride.kernel(&spec.weight(from)?, bias.as_ref(), &spec)?;
        Ok(Self {
            spec,
            stride,
            kernel: Arc::new(kernel),
        })
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
        let kernel = self.stride.kernel(&weight, Some(&needed(bias)?), &self.spec)?;
        self.kernel = Arc::new(kernel);
        Ok(self.size_bytes())
    }
}
