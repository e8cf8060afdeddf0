//! The transformer inside a UNet level (diffusers `transformer_2d.py`, `attention.py`): pixels attend to each other
//! and to the conditioning.

use super::block_inputs::BlockInputs;
use super::config::UNetConfig;
use crate::layers::{
    Attention, Geglu, GroupNorm, KeyValues, Layer, LayerNorm, LayerSource, Linear, MoreKeyValues,
    Projections, Result, Tensor, TokenMerge,
};

/// Norm, projection to tokens, transformer blocks, projection back, residual.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TransformerBlock>,
    /// The number of the first block's cross-attention among those of the network.
    first_cross_attn: usize,
    proj_out: Linear,
    /// Whether tokens are merged here in rows that want it: only where they are most, as `max_downsample` 1 of `tomesd`.
    merges: bool,
}

impl Transformer {
    /// The transformer of level `level`, whose cross-attentions are numbered from `next` on.
    pub(super) fn new(
        config: &UNetConfig,
        level: usize,
        next: &mut usize,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let width = config.block_out_channels[level];
        let first_cross_attn = *next;
        *next += config.transformer_layers[level];
        let projection = |name: &str| {
            if config.use_linear_projection {
                Linear::new(width, width, &from.pp(name))
            } else {
                Linear::pointwise(width, width, &from.pp(name))
            }
        };
        let blocks = from.pp("transformer_blocks");
        let block = |i: usize| {
            let heads = config.heads[level];
            TransformerBlock::new(width, config.cross_attention_dim, heads, &blocks.pp(i))
        };
        Ok(Self {
            // This norm's epsilon is fixed in the reference, unlike the other norms' of the UNet.
            norm: GroupNorm::new(config.norm_num_groups, width, 1e-6, &from.pp("norm"))?,
            proj_in: projection("proj_in")?,
            blocks: (0..config.transformer_layers[level])
                .map(block)
                .collect::<Result<_>>()?,
            first_cross_attn,
            proj_out: projection("proj_out")?,
            merges: level == 0,
        })
    }

    /// The attentions to the conditioning, in the order in which they run.
    pub(super) fn cross_attns(&self) -> impl Iterator<Item = &Attention> {
        self.blocks.iter().map(|block| &block.cross_attn)
    }

    /// `x`: (P, h, w, C) or (B, h, w, C). Result: (B, h, w, C).
    pub(super) fn forward(&self, x: &Tensor, inputs: BlockInputs<'_>) -> Result<Tensor> {
        let (count, h, w, c) = x.dims4()?;
        let y = self.norm.forward(x)?.reshape(&[count, h * w, c])?;
        let mut tokens = self.proj_in.forward(&y)?;
        for (number, block) in self.blocks.iter().enumerate() {
            tokens = if self.merges {
                block.self_attn_by_runs(&tokens, (h, w), inputs.rows.merging(tokens.rows()))?
            } else {
                block.self_attn(&block.self_attn, &tokens)?
            };
            // From here on the rows of an image differ.
            tokens = inputs.rows.expand(&tokens)?;
            let layer = self.first_cross_attn + number;
            let kv = (inputs.cross_attn_kv(layer)?, inputs.image_kv(layer)?);
            tokens = block.cross_attn_and_feed_forward(&tokens, (&kv.0, &kv.1))?;
        }
        let x = inputs.rows.expand(x)?;
        let tokens = tokens.reshape(x.dims())?;
        self.proj_out.forward_add(&tokens, &x)
    }

    /// Its layers.
    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.norm);
        visit(&mut self.proj_in);
        for block in &mut self.blocks {
            block.walk(visit);
        }
        visit(&mut self.proj_out);
    }
}

#[derive(Clone, Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    self_attn: Attention,
    norm2: LayerNorm,
    cross_attn: Attention,
    norm3: LayerNorm,
    feed_forward: FeedForward,
}

impl TransformerBlock {
    fn new(width: usize, cross_width: usize, heads: usize, from: &LayerSource<'_>) -> Result<Self> {
        let norm = |name: &str| LayerNorm::new(width, 1e-5, &from.pp(name));
        Ok(Self {
            norm1: norm("norm1")?,
            self_attn: attention(width, width, heads, &from.pp("attn1"))?,
            norm2: norm("norm2")?,
            cross_attn: attention(width, cross_width, heads, &from.pp("attn2"))?,
            norm3: norm("norm3")?,
            feed_forward: FeedForward::new(width, &from.pp("ff"))?,
        })
    }

    /// Every pixel attends to all others by `attention`, which is the block's for the rows of `x`.
    fn self_attn(&self, attention: &Attention, x: &Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        attention.forward_add(&y, &attention.project_kv(&y)?, x)
    }

    /// The same, run by run of rows that merge tokens or do not.
    fn self_attn_by_runs(&self, x: &Tensor, size: (usize, usize), merging: &[bool]) -> Result<Tensor> {
        let (mut parts, mut start) = (Vec::new(), 0);
        for run in merging.chunk_by(|a, b| a == b) {
            let rows = x.narrow_rows(start, run.len())?;
            let attention = self.self_attn.of_rows(start, run.len(), merging.len())?;
            start += run.len();
            parts.push(if run[0] {
                self.merged_self_attn(&attention, &rows, size)?
            } else {
                self.self_attn(&attention, &rows)?
            });
        }
        Tensor::cat_rows(&parts.iter().collect::<Vec<_>>())
    }

    /// Half of the pixels attend to each other on behalf of all (`tomesd` 0.1.3 with `use_rand=False`, else its defaults:
    /// neither cross-attention nor the feed-forward layer merges).
    fn merged_self_attn(&self, attention: &Attention, x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
        let Some(merge) = TokenMerge::choose(x, (h, w), h * w / 2)? else {
            return self.self_attn(attention, x);
        };
        let y = merge.merge(&self.norm1.forward(x)?)?;
        let kv = attention.project_kv(&y)?;
        merge.unmerge(&attention.forward(&y, &kv)?, x)
    }

    /// What follows self-attention.
    fn cross_attn_and_feed_forward(
        &self,
        x: &Tensor,
        (text, image): (&KeyValues, &[MoreKeyValues]),
    ) -> Result<Tensor> {
        let y = self.norm2.forward(x)?;
        let x = self.cross_attn.forward_add_more(&y, text, image, x)?;
        let y = self.norm3.forward(&x)?;
        self.feed_forward.forward_add(&y, &x)
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.norm1);
        self.self_attn.walk(visit);
        visit(&mut self.norm2);
        self.cross_attn.walk(visit);
        visit(&mut self.norm3);
        visit(&mut self.feed_forward.geglu);
        visit(&mut self.feed_forward.out);
    }
}

/// An attention of tokens of `width` numbers to tokens of `kv_width` numbers, with diffusers' names.
fn attention(width: usize, kv_width: usize, heads: usize, from: &LayerSource<'_>) -> Result<Attention> {
    let projections = Projections {
        q: Linear::without_bias(width, width, &from.pp("to_q"))?,
        k: Linear::without_bias(kv_width, width, &from.pp("to_k"))?,
        v: Linear::without_bias(kv_width, width, &from.pp("to_v"))?,
        out: Linear::new(width, width, &from.pp("to_out").pp(0))?,
    };
    Ok(Attention::new(projections, heads))
}

/// GEGLU, four times as wide inside.
#[derive(Clone, Debug)]
struct FeedForward {
    geglu: Geglu,
    out: Linear,
}

impl FeedForward {
    fn new(width: usize, from: &LayerSource<'_>) -> Result<Self> {
        let net = from.pp("net");
        Ok(Self {
            geglu: Geglu::new(width, 4 * width, &net.pp(0).pp("proj"))?,
            out: Linear::new(4 * width, width, &net.pp(2))?,
        })
    }

    fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.out.forward_add(&self.geglu.forward(x)?, residual)
    }
}
