//! The transformer inside a UNet level (diffusers `transformer_2d.py`, `attention.py`): pixels attend to each other
//! and to the words of the prompt.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Activation, GroupNorm, LayerNorm, Linear, Mask, Merge, attend};

use super::UNetConfig;
use super::blocks::Given;
use super::context::UNetContext;
use crate::layers::{geglu, group_norm, layer_norm, linear, linear_without_bias, pointwise};

/// Norm, projection to tokens, transformer blocks, projection back, residual.
#[derive(Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<Block>,
    /// Which of the context's layers is the first block's.
    first: usize,
    proj_out: Linear,
    /// Whether tokens are merged here in rows that want it: only where they are most, as `max_downsample` 1 of `tomesd`.
    merges: bool,
}

impl Transformer {
    /// The transformer of level `level`, which takes the context's layers from `next` on.
    pub(super) fn new(
        config: &UNetConfig,
        level: usize,
        next: &mut usize,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let width = config.block_out_channels[level];
        let first = *next;
        *next += config.transformer_layers[level];
        let projection = |name: &str| {
            if config.use_linear_projection {
                linear(width, width, &vb.pp(name))
            } else {
                pointwise(width, width, &vb.pp(name))
            }
        };
        let blocks = vb.pp("transformer_blocks");
        Ok(Self {
            // This norm's epsilon is fixed in the reference, unlike the other norms' of the UNet.
            norm: group_norm(config.norm_num_groups, width, 1e-6, &vb.pp("norm"))?,
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
            first,
            proj_out: projection("proj_out")?,
            merges: level == 0,
        })
    }

    /// Adds the keys and values of its blocks to `layers`, for `text` (B, T, D).
    pub(super) fn attend_to(&self, text: &Tensor, layers: &mut Vec<[Tensor; 2]>) -> Result<()> {
        for block in &self.blocks {
            layers.push(block.to_text.keys_and_values(text)?);
        }
        Ok(())
    }

    /// `x`: (P, h, w, C) or (B, h, w, C). Result: (B, h, w, C).
    pub(super) fn forward(&self, x: &Tensor, given: Given<'_>) -> Result<Tensor> {
        let (count, h, w, c) = x.dims4()?;
        let y = self.norm.of(x, false)?.apply(x)?.reshape((count, h * w, c))?;
        let mut tokens = self.proj_in.forward(&y, Activation::None, None)?;
        for (number, block) in self.blocks.iter().enumerate() {
            tokens = if self.merges {
                block.attend_to_self_by_runs(&tokens, (h, w), given.rows.merging(tokens.dim(0)?))?
            } else {
                block.attend_to_self(&tokens)?
            };
            // From here on rows differ that have a picture in common.
            tokens = given.rows.spread(&tokens)?;
            tokens = block.forward_rest(&tokens, given.context, self.first + number)?;
        }
        let x = given.rows.spread(x)?;
        let tokens = tokens.reshape(x.shape())?;
        self.proj_out.forward(&tokens, Activation::None, Some(&x))
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
        let norm = |name: &str| layer_norm(width, 1e-5, &vb.pp(name));
        Ok(Self {
            norm1: norm("norm1")?,
            to_self: Attention::new(width, width, heads, &vb.pp("attn1"))?,
            norm2: norm("norm2")?,
            to_text: Attention::new(width, context, heads, &vb.pp("attn2"))?,
            norm3: norm("norm3")?,
            feed_forward: FeedForward::new(width, &vb.pp("ff"))?,
        })
    }

    /// Every pixel looks at all others.
    fn attend_to_self(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        self.to_self
            .forward(&y, &self.to_self.keys_and_values(&y)?, Some(x))
    }

    /// The same, run by run of rows that merge tokens or do not.
    fn attend_to_self_by_runs(&self, x: &Tensor, size: (usize, usize), merging: &[bool]) -> Result<Tensor> {
        let (mut parts, mut start) = (Vec::new(), 0);
        for run in merging.chunk_by(|a, b| a == b) {
            let rows = x.narrow(0, start, run.len())?;
            start += run.len();
            parts.push(if run[0] {
                self.attend_to_self_merging(&rows, size)?
            } else {
                self.attend_to_self(&rows)?
            });
        }
        Tensor::cat(&parts, 0)
    }

    /// Half of the pixels look at each other on behalf of all (`tomesd` 0.1.3 with `use_rand=False`, else its defaults:
    /// neither the text's attention nor the feed-forward layer merges).
    fn attend_to_self_merging(&self, x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
        let Some(merge) = Merge::of(x, (h, w), h * w / 2)? else {
            return self.attend_to_self(x);
        };
        let y = merge.merge(&self.norm1.forward(x)?)?;
        let keys_and_values = self.to_self.keys_and_values(&y)?;
        merge.unmerge(&self.to_self.forward(&y, &keys_and_values, None)?, x)
    }

    /// What follows the attention of the pixels to each other; `layer` is the block's of the context.
    fn forward_rest(&self, x: &Tensor, context: &UNetContext, layer: usize) -> Result<Tensor> {
        let y = self.norm2.forward(x)?;
        let x = self.to_text.forward(&y, context.layer(layer)?, Some(x))?;
        let y = self.norm3.forward(&x)?;
        self.feed_forward.forward(&y, &x)
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
            q: linear_without_bias(width, width, &vb.pp("to_q"))?,
            k: linear_without_bias(context, width, &vb.pp("to_k"))?,
            v: linear_without_bias(context, width, &vb.pp("to_v"))?,
            out: linear(width, width, &vb.pp("to_out").pp(0))?,
            heads,
        })
    }

    /// Of what is attended to.
    fn keys_and_values(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        Ok([
            self.k.forward(x, Activation::None, None)?,
            self.v.forward(x, Activation::None, None)?,
        ])
    }

    /// `x` attends to these; `residual` is added, if there is one.
    fn forward(&self, x: &Tensor, [k, v]: &[Tensor; 2], residual: Option<&Tensor>) -> Result<Tensor> {
        let q = self.q.forward(x, Activation::None, None)?;
        let y = attend(&q, k, v, self.heads, Mask::None)?;
        self.out.forward(&y, Activation::None, residual)
    }
}

/// GEGLU, four times as wide inside.
#[derive(Debug)]
struct FeedForward {
    gated: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let net = vb.pp("net");
        Ok(Self {
            gated: geglu(width, 4 * width, &net.pp(0).pp("proj"))?,
            out: linear(4 * width, width, &net.pp(2))?,
        })
    }

    fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let y = self.gated.forward(x, Activation::None, None)?;
        self.out.forward(&y, Activation::None, Some(residual))
    }
}
