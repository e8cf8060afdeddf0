//! The transformer inside a UNet level (diffusers `transformer_2d.py`, `attention.py`): pixels attend to each other
//! and to the words of the prompt.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::UNetConfig;
use crate::layers::{GroupNorm, LayerNorm, Linear, Pointwise, attend};

/// Norm, projection to tokens, transformer blocks, projection back, residual.
#[derive(Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Pointwise,
    blocks: Vec<Block>,
    proj_out: Pointwise,
}

impl Transformer {
    /// The transformer of level `level`.
    pub(super) fn new(config: &UNetConfig, level: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.block_out_channels[level];
        let projection = |name: &str| {
            if config.use_linear_projection {
                Pointwise::matrix(width, width, &vb.pp(name))
            } else {
                Pointwise::kernel(width, width, &vb.pp(name))
            }
        };
        let blocks = vb.pp("transformer_blocks");
        Ok(Self {
            // This norm's epsilon is fixed in the reference, unlike the other norms' of the UNet.
            norm: GroupNorm::new(config.norm_num_groups, width, 1e-6, &vb.pp("norm"))?,
            proj_in: projection("proj_in")?,
            blocks: (0..config.transformer_layers[level])
                .map(|i| {
                    Block::new(
                        width,
                        config.cross_attention_dim,
                        config.heads[level],
                        &blocks.pp(i),
                    )
                })
                .collect::<Result<_>>()?,
            proj_out: projection("proj_out")?,
        })
    }

    /// `x`: (B, C, h, w); `context`: (B, T, D).
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let mut tokens = self.proj_in.to_tokens(&self.norm.forward(x)?)?;
        for block in &self.blocks {
            tokens = block.forward(tokens, context)?;
        }
        self.proj_out.to_picture(&tokens, (h, w))? + x
    }
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    to_self: Attention,
    norm2: LayerNorm,
    to_text: Attention,
    norm3: LayerNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(width: usize, context: usize, heads: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm = |name: &str| LayerNorm::new(width, 1e-5, &vb.pp(name));
        Ok(Self {
            norm1: norm("norm1")?,
            to_self: Attention::new(width, width, heads, &vb.pp("attn1"))?,
            norm2: norm("norm2")?,
            to_text: Attention::new(width, context, heads, &vb.pp("attn2"))?,
            norm3: norm("norm3")?,
            feed_forward: FeedForward::new(width, &vb.pp("ff"))?,
        })
    }

    fn forward(&self, x: Tensor, context: &Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(&x)?;
        let x = (self.to_self.forward(&y, &y)? + x)?;
        let y = self.norm2.forward(&x)?;
        let x = (self.to_text.forward(&y, context)? + x)?;
        let y = self.norm3.forward(&x)?;
        self.feed_forward.forward(&y)? + x
    }
}

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn new(width: usize, context: usize, heads: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            q: Linear::without_bias(width, width, &vb.pp("to_q"))?,
            k: Linear::without_bias(context, width, &vb.pp("to_k"))?,
            v: Linear::without_bias(context, width, &vb.pp("to_v"))?,
            out: Linear::new(width, width, &vb.pp("to_out").pp(0))?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let q = self.q.forward_transposed(x)?;
        let k = self.k.forward_transposed(context)?;
        let v = self.v.forward_transposed(context)?;
        self.out.forward(&attend(&q, &k, &v, self.heads, None)?)
    }
}

/// GEGLU (Shazeer, 2020) with the error-function GELU, four times as wide inside.
#[derive(Debug)]
struct FeedForward {
    hidden: Linear,
    gate: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let net = vb.pp("net");
        let (hidden, gate) = Linear::halves(width, 4 * width, &net.pp(0).pp("proj"))?;
        Ok(Self {
            hidden,
            gate,
            out: Linear::new(4 * width, width, &net.pp(2))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate = self.gate.forward(x)?.gelu_erf()?;
        self.out.forward(&(self.hidden.forward(x)? * gate)?)
    }
}
