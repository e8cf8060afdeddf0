//! What encoder and decoder share: residual blocks, the attention in the middle, and the norms' epsilon.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Activation, Around, Conv2d, GroupNorm, Linear, Mask, attend};

use super::VaeConfig;
use crate::layers::{Step, conv, group_norm, normalised, pointwise, shortcut};

/// A group norm of the autoencoder, whose epsilon is fixed in the reference.
pub(super) fn norm(config: &VaeConfig, width: usize, vb: &VarBuilder<'_>) -> Result<GroupNorm> {
    group_norm(config.norm_num_groups, width, 1e-6, vb)
}

/// Two convolutions and a residual.
#[derive(Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Linear>,
}

impl ResBlock {
    pub(super) fn new(config: &VaeConfig, input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shortcut = || pointwise(input, output, &vb.pp("conv_shortcut"));
        Ok(Self {
            norm1: norm(config, input, &vb.pp("norm1"))?,
            conv1: conv(input, output, Step::Same, &vb.pp("conv1"))?,
            norm2: norm(config, output, &vb.pp("norm2"))?,
            conv2: conv(output, output, Step::Same, &vb.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `x` is freed as soon as it is not needed: on a large picture it is the largest of four.
    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let y = normalised(&self.norm1, &self.conv1, &x, Around::default())?;
        let residual = shortcut(self.shortcut.as_ref(), x)?;
        let around = Around {
            residual: Some(&residual),
            ..Around::default()
        };
        normalised(&self.norm2, &self.conv2, &y, around)
    }
}

/// The innermost part: block, one-headed attention over all pixels, block.
#[derive(Debug)]
pub(super) struct MidBlock {
    first: ResBlock,
    attention: Option<Attention>,
    second: ResBlock,
}

impl MidBlock {
    pub(super) fn new(config: &VaeConfig, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let attention = || Attention::new(config, width, &vb.pp("attentions").pp(0));
        Ok(Self {
            first: ResBlock::new(config, width, width, &vb.pp("resnets").pp(0))?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
            second: ResBlock::new(config, width, width, &vb.pp("resnets").pp(1))?,
        })
    }

    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.first.forward(x)?;
        let x = match &self.attention {
            Some(attention) => attention.forward(&x)?,
            None => x,
        };
        self.second.forward(x)
    }
}

/// Two matrices instead of four: with a single head as wide as the pixels, scores are x Wqᵀ Wk xᵀ and results
/// P x Wvᵀ Woᵀ, so that pixels are their own keys and values. What the keys' bias adds is the same for all scores of a
/// query, and softmax takes it out.
#[derive(Debug)]
struct Attention {
    norm: GroupNorm,
    q: Linear,
    out: Linear,
}

impl Attention {
    fn new(config: &VaeConfig, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let part = |name: &str| -> Result<_> {
            let weight = vb.pp(name).get((width, width), "weight")?;
            let bias = vb.pp(name).get(width, "bias")?;
            Ok((weight.to_dtype(DType::F64)?, bias.to_dtype(DType::F64)?))
        };
        let ((wq, bq), (wk, _)) = (part("to_q")?, part("to_k")?);
        let ((wv, bv), (wo, bo)) = (part("to_v")?, part("to_out.0")?);
        let layer = |weight: Tensor, bias: Tensor| {
            let bias = bias.to_dtype(DType::F32)?;
            Linear::new(&weight.to_dtype(DType::F32)?, Some(&bias))
        };
        let of_keys = wk.t()?;
        Ok(Self {
            norm: norm(config, width, &vb.pp("group_norm"))?,
            q: layer(
                of_keys.matmul(&wq)?,
                of_keys.matmul(&bq.unsqueeze(1)?)?.squeeze(1)?,
            )?,
            out: layer(wo.matmul(&wv)?, (wo.matmul(&bv.unsqueeze(1)?)?.squeeze(1)? + bo)?)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let tokens = self.norm.of(x, false)?.apply(x)?.reshape((b, h * w, c))?;
        let q = self.q.forward(&tokens, Activation::None, None)?;
        let y = attend(&q, &tokens, &tokens, 1, Mask::None)?;
        self.out
            .forward(&y.reshape((b, h, w, c))?, Activation::None, Some(x))
    }
}
