//! Self-attention with a single head as wide as the tokens, whose four matrices fold into two.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels as kernels;

use super::patch::LayerPatch;
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// Scores are x Wqᵀ Wk xᵀ and results P x Wvᵀ Woᵀ, so that tokens are their own keys and values. What the keys' bias adds
/// is the same for all scores of a query, and softmax takes it out.
#[derive(Debug)]
pub(crate) struct SingleHeadAttention {
    /// `to_q`, `to_k`, `to_v` and `to_out.0`.
    specs: [LayerSpec; 4],
    /// `to_q` and then `to_k` transposed.
    qk: kernels::Linear,
    /// `to_v` and then `to_out.0`.
    vo: kernels::Linear,
}

impl SingleHeadAttention {
    /// Of tokens of `width` numbers. The products are computed in f64.
    pub(crate) fn new(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Linear,
            inputs: width,
            outputs: width,
            bias: true,
        };
        let read = |name: &str| -> Result<_> {
            let vb = vb.pp(name);
            let spec = LayerSpec::at(&vb, shape);
            let (weight, bias) = (spec.weight(&vb)?, spec.bias(&vb)?);
            Ok((spec, weight.to_dtype(DType::F64)?, bias.to_dtype(DType::F64)?))
        };
        let ((q, wq, bq), (k, wk, _)) = (read("to_q")?, read("to_k")?);
        let ((v, wv, bv), (out, wo, bo)) = (read("to_v")?, read("to_out.0")?);
        let layer = |weight: Tensor, bias: Tensor| {
            let bias = bias.to_dtype(DType::F32)?;
            kernels::Linear::new(&weight.to_dtype(DType::F32)?, Some(&bias))
        };
        let of_keys = wk.t()?;
        Ok(Self {
            specs: [q, k, v, out],
            qk: layer(
                of_keys.matmul(&wq)?,
                of_keys.matmul(&bq.unsqueeze(1)?)?.squeeze(1)?,
            )?,
            vo: layer(wo.matmul(&wv)?, (wo.matmul(&bv.unsqueeze(1)?)?.squeeze(1)? + bo)?)?,
        })
    }

    /// `x`: (B, T, D), with `residual` of as many numbers added. Result: the shape of `residual`.
    pub(crate) fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let q = self.qk.forward(x, kernels::Activation::None, None)?;
        let y = kernels::attend(&q, x, x, 1, kernels::AttnMask::None)?;
        self.vo.forward(
            &y.reshape(residual.shape())?,
            kernels::Activation::None,
            Some(residual),
        )
    }
}

impl Layer for SingleHeadAttention {
    fn specs(&self) -> &[LayerSpec] {
        &self.specs
    }

    fn size_bytes(&self) -> usize {
        self.qk.size_bytes() + self.vo.size_bytes()
    }

    fn patch(&mut self, _: LayerPatch) -> Result<usize> {
        candle_core::bail!("four layers folded into two cannot be changed one by one")
    }
}
