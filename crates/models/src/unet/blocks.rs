//! The levels of the UNet (diffusers `unet_2d_blocks.py`): down, middle and up, with and without attention.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::UNetConfig;
use super::attention::Transformer;
use crate::layers::{Conv, GroupNorm, Linear, Pointwise, upsample_to};

/// Two convolutions with the time embedding added between them, and a residual.
#[derive(Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Pointwise>,
}

impl ResBlock {
    fn new(config: &UNetConfig, input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm =
            |width, name: &str| GroupNorm::new(config.norm_num_groups, width, config.norm_eps, &vb.pp(name));
        let shortcut = || Pointwise::kernel(input, output, &vb.pp("conv_shortcut"));
        Ok(Self {
            norm1: norm(input, "norm1")?,
            conv1: Conv::same(input, output, &vb.pp("conv1"))?,
            time: Linear::new(config.time_embed_dim, output, &vb.pp("time_emb_proj"))?,
            norm2: norm(output, "norm2")?,
            conv2: Conv::same(output, output, &vb.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `time`: (B, 1, width), activated.
    fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let y = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        let (b, c, _, _) = y.dims4()?;
        let y = y.broadcast_add(&self.time.forward(time)?.reshape((b, c, 1, 1))?)?;
        let y = self.conv2.forward(&self.norm2.forward_silu(&y)?)?;
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x)? + y,
            None => x + y,
        }
    }
}

/// A level on the way down; every intermediate result is kept for the way up.
#[derive(Debug)]
pub(super) struct DownBlock {
    layers: Vec<(ResBlock, Option<Transformer>)>,
    downsample: Option<Conv>,
}

impl DownBlock {
    pub(super) fn new(config: &UNetConfig, level: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let output = config.block_out_channels[level];
        let input = config.block_out_channels[level.saturating_sub(1)];
        let layer = |i: usize| -> Result<_> {
            let input = if i == 0 { input } else { output };
            let transformer = || Transformer::new(config, level, &vb.pp("attentions").pp(i));
            Ok((
                ResBlock::new(config, input, output, &vb.pp("resnets").pp(i))?,
                config.down_attention[level].then(transformer).transpose()?,
            ))
        };
        let downsample = vb.pp("downsamplers").pp(0).pp("conv");
        let downsample = match (level + 1 == config.levels(), config.downsample_padding) {
            (true, _) => None,
            (false, 0) => Some(Conv::halving_after_right_bottom_pad(output, &downsample)?),
            (false, _) => Some(Conv::halving(output, &downsample)?),
        };
        Ok(Self {
            layers: (0..config.layers_per_block[level])
                .map(layer)
                .collect::<Result<_>>()?,
            downsample,
        })
    }

    pub(super) fn forward(
        &self,
        mut x: Tensor,
        time: &Tensor,
        context: &Tensor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (resnet, transformer) in &self.layers {
            x = resnet.forward(&x, time)?;
            if let Some(transformer) = transformer {
                x = transformer.forward(&x, context)?;
            }
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x)?;
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
    pub(super) fn new(config: &UNetConfig, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let last = config.levels() - 1;
        Ok(Self {
            first: ResBlock::new(config, width, width, &vb.pp("resnets").pp(0))?,
            transformer: Transformer::new(config, last, &vb.pp("attentions").pp(0))?,
            second: ResBlock::new(config, width, width, &vb.pp("resnets").pp(1))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, time: &Tensor, context: &Tensor) -> Result<Tensor> {
        let x = self.first.forward(x, time)?;
        let x = self.transformer.forward(&x, context)?;
        self.second.forward(&x, time)
    }
}

/// A level on the way up; it takes back what the way down kept.
#[derive(Debug)]
pub(super) struct UpBlock {
    layers: Vec<(ResBlock, Option<Transformer>)>,
    upsample: Option<Conv>,
}

impl UpBlock {
    /// `index` counts from the innermost level.
    pub(super) fn new(config: &UNetConfig, index: usize, vb: &VarBuilder<'_>) -> Result<Self> {
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
            let transformer = || Transformer::new(config, level, &vb.pp("attentions").pp(i));
            Ok((
                ResBlock::new(config, input + skip, output, &vb.pp("resnets").pp(i))?,
                config.up_attention[index].then(transformer).transpose()?,
            ))
        };
        let upsample = || Conv::same(output, output, &vb.pp("upsamplers").pp(0).pp("conv"));
        Ok(Self {
            layers: (0..count).map(layer).collect::<Result<_>>()?,
            upsample: (level > 0).then(upsample).transpose()?,
        })
    }

    pub(super) fn forward(
        &self,
        mut x: Tensor,
        time: &Tensor,
        context: &Tensor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (resnet, transformer) in &self.layers {
            let Some(skip) = skips.pop() else {
                candle_core::bail!("the way up has more layers than the way down has left results");
            };
            x = resnet.forward(&Tensor::cat(&[&x, &skip], 1)?, time)?;
            if let Some(transformer) = transformer {
                x = transformer.forward(&x, context)?;
            }
        }
        // The next level's size is that of its kept results: twice this one's, or one less where halving rounded up.
        if let (Some(conv), Some(next)) = (&self.upsample, skips.last()) {
            let (_, _, h, w) = next.dims4()?;
            x = conv.forward(&upsample_to(&x, (h, w))?)?;
        }
        Ok(x)
    }
}
