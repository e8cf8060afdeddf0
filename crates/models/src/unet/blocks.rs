//! The levels of the UNet (diffusers `unet_2d_blocks.py`): down, middle and up, with and without attention.

use super::block_inputs::BlockInputs;
use super::config::UNetConfig;
use super::transformer::Transformer;
use crate::layers::{
    Conv2d, ConvFusion, GroupNorm, KernelError, Layer, LayerSource, Linear, Result, Stride, Tensor,
    join_channels, shortcut,
};

/// Two convolutions with the time embedding added between them, and a residual.
#[derive(Clone, Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Linear>,
}

impl ResBlock {
    fn new(config: &UNetConfig, input: usize, output: usize, from: &LayerSource<'_>) -> Result<Self> {
        let norm = |width, name: &str| {
            GroupNorm::new(config.norm_num_groups, width, config.norm_eps, &from.pp(name))
        };
        let shortcut = || Linear::pointwise(input, output, &from.pp("conv_shortcut"));
        Ok(Self {
            norm1: norm(input, "norm1")?,
            conv1: Conv2d::new(input, output, Stride::One, &from.pp("conv1"))?,
            time: Linear::new(config.time_embed_dim, output, &from.pp("time_emb_proj"))?,
            norm2: norm(output, "norm2")?,
            conv2: Conv2d::new(output, output, Stride::One, &from.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `x`: of P images or, after the first cross-attention, of B rows.
    fn forward(&self, x: Tensor, inputs: BlockInputs<'_>) -> Result<Tensor> {
        let mut time = self.time.forward(inputs.time)?;
        if x.rows() != time.rows() {
            time = inputs.rows.expand(&time)?;
        }
        let fusion = ConvFusion {
            norm: Some(&self.norm1),
            row_bias: Some(&time),
            ..ConvFusion::default()
        };
        let y = self.conv1.forward(&x, fusion)?;
        let residual = shortcut(self.shortcut.as_ref(), x)?;
        let fusion = ConvFusion {
            norm: Some(&self.norm2),
            residual: Some(&residual),
            ..ConvFusion::default()
        };
        self.conv2.forward(&y, fusion)
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.norm1);
        visit(&mut self.conv1);
        visit(&mut self.time);
        visit(&mut self.norm2);
        visit(&mut self.conv2);
        if let Some(shortcut) = &mut self.shortcut {
            visit(shortcut);
        }
    }
}

/// The layers of a level on the way down or up.
type Layers = [(ResBlock, Option<Transformer>)];

fn transformers(layers: &Layers) -> impl Iterator<Item = &Transformer> {
    layers.iter().filter_map(|(_, transformer)| transformer.as_ref())
}

fn walk(layers: &mut Layers, visit: &mut dyn FnMut(&mut dyn Layer)) {
    for (resnet, transformer) in layers {
        resnet.walk(visit);
        if let Some(transformer) = transformer {
            transformer.walk(visit);
        }
    }
}

/// A level on the way down; every intermediate result is kept for the way up.
#[derive(Clone, Debug)]
pub(super) struct DownBlock {
    layers: Vec<(ResBlock, Option<Transformer>)>,
    downsample: Option<Conv2d>,
}

impl DownBlock {
    /// `next` is the number of the network's next cross-attention, and is advanced by those of this block.
    pub(super) fn new(
        config: &UNetConfig,
        level: usize,
        next: &mut usize,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let output = config.block_out_channels[level];
        let input = config.block_out_channels[level.saturating_sub(1)];
        let layer = |i: usize| -> Result<_> {
            let input = if i == 0 { input } else { output };
            let transformer = || Transformer::new(config, level, next, &from.pp("attentions").pp(i));
            Ok((
                ResBlock::new(config, input, output, &from.pp("resnets").pp(i))?,
                config.down_attention[level].then(transformer).transpose()?,
            ))
        };
        let conv = |stride| Conv2d::new(output, output, stride, &from.pp("downsamplers").pp(0).pp("conv"));
        let downsample = match (level + 1 == config.levels(), config.downsample_padding) {
            (true, _) => None,
            (false, 0) => Some(conv(Stride::TwoPaddedAfter)?),
            (false, _) => Some(conv(Stride::Two)?),
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

    pub(super) fn forward(
        &self,
        mut x: Tensor,
        inputs: BlockInputs<'_>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (resnet, transformer) in &self.layers {
            x = resnet.forward(x, inputs)?;
            if let Some(transformer) = transformer {
                x = transformer.forward(&x, inputs)?;
            }
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x, ConvFusion::default())?;
            skips.push(x.clone());
        }
        Ok(x)
    }

    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        walk(&mut self.layers, visit);
        if let Some(downsample) = &mut self.downsample {
            visit(downsample);
        }
    }
}

/// The innermost level.
#[derive(Clone, Debug)]
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
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let last = config.levels() - 1;
        Ok(Self {
            first: ResBlock::new(config, width, width, &from.pp("resnets").pp(0))?,
            transformer: Transformer::new(config, last, next, &from.pp("attentions").pp(0))?,
            second: ResBlock::new(config, width, width, &from.pp("resnets").pp(1))?,
        })
    }

    pub(super) fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    pub(super) fn forward(&self, x: Tensor, inputs: BlockInputs<'_>) -> Result<Tensor> {
        let x = self.first.forward(x, inputs)?;
        let x = self.transformer.forward(&x, inputs)?;
        self.second.forward(x, inputs)
    }

    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        self.first.walk(visit);
        self.transformer.walk(visit);
        self.second.walk(visit);
    }
}

/// A level on the way up; it takes back what the way down kept.
#[derive(Clone, Debug)]
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
        from: &LayerSource<'_>,
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
            let transformer = || Transformer::new(config, level, next, &from.pp("attentions").pp(i));
            Ok((
                ResBlock::new(config, input + skip, output, &from.pp("resnets").pp(i))?,
                config.up_attention[index].then(transformer).transpose()?,
            ))
        };
        let upsample = || {
            Conv2d::new(
                output,
                output,
                Stride::One,
                &from.pp("upsamplers").pp(0).pp("conv"),
            )
        };
        Ok(Self {
            layers: (0..count).map(layer).collect::<Result<_>>()?,
            upsample: (level > 0).then(upsample).transpose()?,
        })
    }

    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        transformers(&self.layers)
    }

    pub(super) fn forward(
        &self,
        mut x: Tensor,
        inputs: BlockInputs<'_>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (resnet, transformer) in &self.layers {
            let Some(skip) = skips.pop() else {
                return Err(KernelError::mismatch(
                    "the way up has more layers than the way down has kept results",
                ));
            };
            x = resnet.forward(join_channels(&x, &skip)?, inputs)?;
            if let Some(transformer) = transformer {
                x = transformer.forward(&x, inputs)?;
            }
        }
        // The next level's size is that of its kept results: twice this one's, or one less where halving rounded up.
        if let (Some(conv), Some(next)) = (&self.upsample, skips.last()) {
            let (_, h, w, _) = next.dims4()?;
            let fusion = ConvFusion {
                upsample: Some((h, w)),
                ..ConvFusion::default()
            };
            x = conv.forward(&x, fusion)?;
        }
        Ok(x)
    }

    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        walk(&mut self.layers, visit);
        if let Some(upsample) = &mut self.upsample {
            visit(upsample);
        }
    }
}
