//! Self-attention with a single head as wide as the tokens: four layers of a checkpoint, computed as two.

use pentimento_kernels::{self as kernels, KernelError, LayerSource, Result, Tensor};

use super::patch::LayerPatch;
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// `to_q`, `to_k`, `to_v` and `to_out.0`, folded.
#[derive(Debug)]
pub(crate) struct SingleHeadAttention {
    specs: [LayerSpec; 4],
    kernel: kernels::SingleHeadAttention,
}

impl SingleHeadAttention {
    /// Of tokens of `width` numbers.
    pub(crate) fn new(width: usize, from: &LayerSource<'_>) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Linear,
            inputs: width,
            outputs: width,
            bias: true,
        };
        let read = |name: &str| -> Result<_> {
            let from = from.pp(name);
            let spec = LayerSpec::at(&from, shape);
            let weights = (spec.weight(&from)?, spec.bias(&from)?);
            Ok((spec, weights))
        };
        let ((q, wq), (k, wk)) = (read("to_q")?, read("to_k")?);
        let ((v, wv), (out, wo)) = (read("to_v")?, read("to_out.0")?);
        Ok(Self {
            specs: [q, k, v, out],
            kernel: kernels::SingleHeadAttention::new([wq, wk, wv, wo], from.device())?,
        })
    }

    /// `x`: (B, T, D), with `residual` of as many numbers added. Result: the shape of `residual`.
    pub(crate) fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.kernel.forward_add(x, residual)
    }
}

impl Layer for SingleHeadAttention {
    fn specs(&self) -> &[LayerSpec] {
        &self.specs
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }

    fn patch(&mut self, _: LayerPatch) -> Result<usize> {
        Err(KernelError::mismatch(
            "four layers folded into two cannot be changed one by one",
        ))
    }
}
