//! A picture cut into squares that do not overlap, each of them a token.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels as kernels;

use super::patch::LayerPatch;
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// A convolution whose stride is its kernel's side, without a bias: one matrix for all squares.
#[derive(Clone, Debug)]
pub(crate) struct PatchEmbedding {
    spec: LayerSpec,
    side: usize,
    kernel: Arc<kernels::Linear>,
}

impl PatchEmbedding {
    /// Squares of `side` pixels with `channels` channels to tokens of `width` numbers.
    pub(crate) fn new(channels: usize, width: usize, side: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Patches { side },
            inputs: channels,
            outputs: width,
            bias: false,
        };
        let spec = LayerSpec::at(vb, shape);
        let weight = spec.weight(vb)?.reshape((width, channels * side * side))?;
        Ok(Self {
            spec,
            side,
            kernel: Arc::new(kernels::Linear::new(&weight, None)?),
        })
    }

    /// `x`: (B, C, h, w), sides multiples of the square's. Result: (B, squares, D), line by line.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let side = self.side;
        let (lines, columns) = (h / side, w / side);
        // As the kernel has its numbers: channel, line, column.
        let squares = x
            .reshape(&[b, c, lines, side, columns, side])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((b, lines * columns, c * side * side))?;
        self.kernel
            .forward(&squares.contiguous()?, kernels::Activation::None, None)
    }
}

impl Layer for PatchEmbedding {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }

    fn patch(&mut self, _: LayerPatch) -> Result<usize> {
        candle_core::bail!("no LoRA changes how a picture is cut")
    }
}
