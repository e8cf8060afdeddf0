//! What encoder and decoder share: residual blocks, the attention in the middle, and the norms' epsilon.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::VaeConfig;
use crate::layers::{Conv, GroupNorm, Linear, Pointwise, attend};

/// A group norm of the autoencoder, whose epsilon is fixed in the reference.
pub(super) fn norm(config: &VaeConfig, width: usize, vb: &VarBuilder<'_>) -> Result<GroupNorm> {
    GroupNorm::new(config.norm_num_groups, width, 1e-6, vb)
}

/// Two convolutions and a residual.
#[derive(Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Pointwise>,
}

impl ResBlock {
    pub(super) fn new(config: &VaeConfig, input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shortcut = || Pointwise::kernel(input, output, &vb.pp("conv_shortcut"));
        Ok(Self {
            norm1: norm(config, input, &vb.pp("norm1"))?,
            conv1: Conv::same(input, output, &vb.pp("conv1"))?,
            norm2: norm(config, output, &vb.pp("norm2"))?,
            conv2: Conv::same(output, output, &vb.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        let y = self.conv2.forward(&self.norm2.forward_silu(&y)?)?;
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x)? + y,
            None => x + y,
        }
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

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.first.forward(x)?;
        let x = match &self.attention {
            Some(attention) => attention.forward(&x)?,
            None => x,
        };
        self.second.forward(&x)
    }
}

#[derive(Debug)]
struct Attention {
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Pointwise,
}

impl Attention {
    fn new(config: &VaeConfig, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            norm: norm(config, width, &vb.pp("group_norm"))?,
            q: Linear::new(width, width, &vb.pp("to_q"))?,
            k: Linear::new(width, width, &vb.pp("to_k"))?,
            v: Linear::new(width, width, &vb.pp("to_v"))?,
            out: Pointwise::matrix(width, width, &vb.pp("to_out").pp(0))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        // (B, T, C), as a view.
        let tokens = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?;
        let (q, k, v) = (
            self.q.forward_transposed(&tokens)?,
            self.k.forward_transposed(&tokens)?,
            self.v.forward_transposed(&tokens)?,
        );
        let y = attend(&q, &k, &v, 1, None)?;
        self.out.to_picture(&y, (h, w))? + x
    }
}
