//! A picture cut into squares that do not overlap, each of them a token.

use std::sync::Arc;

use pentimento_kernels::{self as kernels, HostTensor, KernelError, LayerSource, Result, Tensor};

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
    pub(crate) fn new(channels: usize, width: usize, side: usize, from: &LayerSource<'_>) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Patches { side },
            inputs: channels,
            outputs: width,
            bias: false,
        };
        let spec = LayerSpec::at(from, shape);
        let weight = spec.weight(from)?.reshape((width, channels * side * side))?;
        Ok(Self {
            spec,
            side,
            kernel: Arc::new(kernels::Linear::new(&weight, None, from.device())?),
        })
    }

    /// The squares of `x` (B, C, h, w), sides multiples of theirs, line by line: (B, squares, C · side · side).
    pub(crate) fn squares(&self, x: &HostTensor) -> Result<HostTensor> {
        let (b, c, h, w) = x.dims4()?;
        let side = self.side;
        let (lines, columns) = (h / side, w / side);
        // As the kernel has its numbers: channel, line, column.
        let squares = x
            .reshape(&[b, c, lines, side, columns, side])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((b, lines * columns, c * side * side))?;
        Ok(squares.contiguous()?)
    }

    /// `squares`: (B, squares, C · side · side). Result: (B, squares, D).
    pub(crate) fn forward(&self, squares: &Tensor) -> Result<Tensor> {
        self.kernel.forward(squares, kernels::Activation::None, None)
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
        Err(KernelError::mismatch("no LoRA changes how a picture is cut"))
    }
}
