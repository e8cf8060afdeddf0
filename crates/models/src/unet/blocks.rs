//! The levels of the UNet (diffusers `unet_2d_blocks.py`): down, middle and up, with and without attention.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Activation, Around, Conv2d, GroupNorm, Linear, join_channels};

use super::UNetConfig;
use super::attention::Transformer;
use super::context::UNetContext;
use super::rows::Rows;
use crate::layers::{Step, conv, group_norm, linear, normalised, pointwise, shortcut};

/// What every level of a forward is given beside its input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    /// (P, 1, width), activated.
    pub(super) time: &'a Tensor,
    /// Of B rows.
    pub(super) context: &'a UNetContext,
    /// Which of them are whose.
    pub(super) rows: &'a Rows,
}

/// Two convolutions with the time embedding added between them, and a residual.
#[derive(Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Linear>,
}

impl ResBlock {
    fn new(config: &UNetConfig, input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm =
            |width, name: &str| group_norm(config.norm_num_groups, width, config.norm_eps, &vb.pp(name));
        let shortcut = || pointwise(input, output, &vb.pp("conv_shortcut"));
        Ok(Self {
            norm1: norm(input, "norm1")?,
            conv1: conv(input, output, Step::Same, &vb.pp("conv1"))?,
            time: linear(config.time_embed_dim, output, &vb.pp("time_emb_proj"))?,
            norm2: norm(output, "norm2")?,
            conv2: conv(output, output, Step::Same, &vb.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `x`: of P pictures or, once the text has parted them, of B rows.
    fn forward(&self, x: Tensor, given: Given<'_>) -> Result<Tensor> {
        let mut time = self.time.forward(given.time, Activation::None, None)?;
        if x.dim(0)? != time.dim(0)? {
            time = given.rows.spread(&time)?;
        }
        let around = Around {
            row_bias: Some(&time),
            ..Around::default()
        };
        let y = normalised(&self.norm1, &self.conv1, &x, around)?;
        let residual = shortcut(self.shortcut.as_ref(), x)?;
        let around = Around {
            residual: Some(&residual),
            ..Around::default()
        };
        normalised(&self.norm2, &self.conv2, &y, around)
    }
}

/// The layers of a level on the way down or up.
type Layers = [(ResBlock, Option<Transformer>)];

fn transformers(layers: &Layers) -> impl Iterator<Item = &Transformer> {
    layers.iter().filter_map(|(_, transformer)| transformer.as_ref())
}

/// A level on the way down; every intermediate result is kept for the way up.
#[derive(Debug)]
pub(super) struct DownBlock {
    layers: Vec<(ResBlock, Option<Transformer>)>,
    downsample: Option<Conv2d>,
}

impl DownBlock {
    /// `next`: the first layer of the context that is still to be given to a transformer.
    pub(super) fn new(
        config: &UNetConfig,
        level: usize,
        next: &mut usize,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let output = config.block_out_channels[level];
        let input = config.block_out_channels[level.saturating_sub(1)];
        let layer = |i: usize| -> Result<_> {
            let input = if i == 0 { input } else { output };
            let transformer = || Transformer::new(config, level, next, &vb.pp("attentions").pp(i));
            Ok((
                ResBlock::new(config, input, output, &vb.pp("resnets").pp(i))?,
                config.down_attention[level].then(transformer).transpose()?,
            ))
        };
        let halving = |step| conv(output, output, step, &vb.pp("downsamplers").pp(0).pp("conv"));
        let downsample = match (level + 1 == config.levels(), config.downsample_padding) {
            (true, _) => None,
            (false, 0) => Some(halving(Step::HalvingAfterRightBottomPad)?),
            (false, _) => Some(halving(Step::Halving)?),
        };
        Ok(Self {
            layers: (0..config.layers_per_block[level])
                .map(layer)
                .collect::<Result<_>>()?,
            downsample,
        })
    }

    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        transformers(&self.layers)
    }

    pub(super) fn forward(&self, mut x: Tensor, given: Given<'_>, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        for (resnet, transformer) in &self.layers {
            x = resnet.forward(x, given)?;
            if let Some(transformer) = transformer {
                x = transformer.forward(&x, given)?;
            }
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x, Around::default())?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// The innermost level.
#[derive(Debug)]
pub(super) struct MidBlock {
    first: ResBlock,
    transformer: Transformer,
    second: ResBlock,
}

impl MidBlock {
    pub(super) fn new(
        config: &UNetConfig,
        width: usize,
        next: &mut usize,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let last = config.levels() - 1;
        Ok(Self {
            first: ResBlock::new(config, width, width, &vb.pp("resnets").pp(0))?,
            transformer: Transformer::new(config, last, next, &vb.pp("attentions").pp(0))?,
            second: ResBlock::new(config, width, width, &vb.pp("resnets").pp(1))?,
        })
    }

    pub(super) fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    pub(super) fn forward(&self, x: Tensor, given: Given<'_>) -> Result<Tensor> {
        let x = self.first.forward(x, given)?;
        let x = self.transformer.forward(&x, given)?;
        self.second.forward(x, given)
    }
}

/// A level on the way up; it takes back what the way down kept.
#[derive(Debug)]
pub(super) struct UpBlock {
    layers: Vec<(ResBlock, Option<Transformer>)>,
    upsample: Option<Conv2d>,
}

impl UpBlock {
    /// `index` counts from the innermost level; `next` as for [`DownBlock::new`].
    pub(super) fn new(
        config: &UNetConfig,
        index: usize,
        next: &mut usize,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let widths = &config.block_out_channels;
        let level = config.levels() - 1 - index;
        let output = widths[level];
        let from_below = widths[(level + 1).min(config.levels() - 1)];
        let outer = widths[level.saturating_sub(1)];
        // One layer more than on the way down, for the result of the downsampling (or of the first convolution).
        let count = config.layers_per_block[level] + 1;
        let layer = |i: usize| -> Result<_> {
            let input = if i == 0 { from_below } else { output };
            let skip = if i + 1 == count { outer } else { output };
            let transformer = || Transformer::new(config, level, next, &vb.pp("attentions").pp(i));
            Ok((
                ResBlock::new(config, input + skip, output, &vb.pp("resnets").pp(i))?,
                config.up_attention[index].then(transformer).transpose()?,
            ))
        };
        let upsample = || conv(output, output, Step::Same, &vb.pp("upsamplers").pp(0).pp("conv"));
        Ok(Self {
            layers: (0..count).map(layer).collect::<Result<_>>()?,
            upsample: (level > 0).then(upsample).transpose()?,
        })
    }

    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        transformers(&self.layers)
    }

    pub(super) fn forward(&self, mut x: Tensor, given: Given<'_>, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        for (resnet, transformer) in &self.layers {
            let Some(skip) = skips.pop() else {
                candle_core::bail!("the way up has more layers than the way down has left results");
            };
            x = resnet.forward(join_channels(&x, &skip)?, given)?;
            if let Some(transformer) = transformer {
                x = transformer.forward(&x, given)?;
            }
        }
        // The next level's size is that of its kept results: twice this one's, or one less where halving rounded up.
        if let (Some(conv), Some(next)) = (&self.upsample, skips.last()) {
            let (_, h, w, _) = next.dims4()?;
            let around = Around {
                upsample: Some((h, w)),
                ..Around::default()
            };
            x = conv.forward(&x, around)?;
        }
        Ok(x)
    }
}
