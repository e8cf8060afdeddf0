//! Self-attention with a single head as wide as the tokens, whose four matrices fold into two.

use candle_core::DType;

use super::{Linear, attend};
use crate::attention::AttnMask;
use crate::matrix::Activation;
use crate::{Device, HostTensor, Result, Tensor};

/// Scores are x Wqᵀ Wk xᵀ and results P x Wvᵀ Woᵀ, so that tokens are their own keys and values. What the keys' bias adds
/// is the same for all scores of a query, and softmax takes it out.
#[derive(Debug)]
pub struct SingleHeadAttention {
    /// Of the queries and then of the keys transposed.
    qk: Linear,
    /// Of the values and then of the result.
    vo: Linear,
}

impl SingleHeadAttention {
    /// Of tokens of D numbers: weight (D, D) and bias (D,) of queries, keys, values and result, in main memory. They are
    /// folded there, in f64, whatever the device is.
    ///
    /// # Errors
    /// When the shapes do not fit each other, or the device has no room.
    pub fn new(layers: [(HostTensor, HostTensor); 4], device: &Device) -> Result<Self> {
        let wide = |(weight, bias): (HostTensor, HostTensor)| -> Result<_> {
            Ok((weight.to_dtype(DType::F64)?, bias.to_dtype(DType::F64)?))
        };
        let [q, k, v, out] = layers;
        let ((wq, bq), (wk, _), (wv, bv), (wo, bo)) = (wide(q)?, wide(k)?, wide(v)?, wide(out)?);
        let layer = |weight: HostTensor, bias: HostTensor| {
            let bias = bias.to_dtype(DType::F32)?;
            Linear::new(&weight.to_dtype(DType::F32)?, Some(&bias), device)
        };
        let of_keys = wk.t()?;
        Ok(Self {
            qk: layer(
                of_keys.matmul(&wq)?,
                of_keys.matmul(&bq.unsqueeze(1)?)?.squeeze(1)?,
            )?,
            vo: layer(wo.matmul(&wv)?, (wo.matmul(&bv.unsqueeze(1)?)?.squeeze(1)? + bo)?)?,
        })
    }

    /// Bytes that the folded weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.qk.size_bytes() + self.vo.size_bytes()
    }

    /// `x`: (B, T, D), with `residual` of as many numbers added. Result: the shape of `residual`.
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is elsewhere.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let q = self.qk.forward(x, Activation::None, None)?;
        let y = attend((&q, x, x), 1, AttnMask::None, self.qk.precision())?;
        self.vo
            .forward(&y.reshape(residual.dims())?, Activation::None, Some(residual))
    }
}
