//! Encoder and decoder as what they are for whoever runs them: stages, one after another, each with one tensor in and one out.
//!
//! A norm needs the whole picture and so does the attention in the middle, which is why a pass is cut between its layers and
//! not into tiles: run one by one with anything else in between, the stages give the bytes of one go.

use super::blocks::{AttentionBlock, ResBlock, norm};
use super::config::VaeConfig;
use super::tiny::{self, TinyConfig};
use crate::layers::{Conv2d, ConvFusion, GroupNorm, Layer, LayerSource, Result, Stride, Tensor};

/// (1, H, W, C) to (1, H', W', C').
#[derive(Debug)]
enum Stage {
    /// In at the beginning, and down.
    Conv(Conv2d),
    Block(Box<ResBlock>),
    Attention(Box<AttentionBlock>),
    /// To twice the size.
    Up(Conv2d),
    /// Out at the end.
    Out(GroupNorm, Conv2d),
    /// In or out of a tiny autoencoder.
    TinyEnd(tiny::End),
    TinyBlock(Box<tiny::Block>),
}

impl Stage {
    /// `x` is freed as soon as it is not needed.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(&x, ConvFusion::default()),
            Self::Block(block) => block.forward(x),
            Self::Attention(attention) => attention.forward(&x),
            Self::Up(conv) => {
                let (_, h, w, _) = x.dims4()?;
                let fusion = ConvFusion {
                    upsample: Some((2 * h, 2 * w)),
                    ..ConvFusion::default()
                };
                conv.forward(&x, fusion)
            }
            Self::Out(norm, conv) => {
                let fusion = ConvFusion {
                    norm: Some(norm),
                    ..ConvFusion::default()
                };
                conv.forward(&x, fusion)
            }
            Self::TinyEnd(end) => end.forward(&x),
            Self::TinyBlock(block) => block.forward(x),
        }
    }

    fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        match self {
            Self::Conv(conv) | Self::Up(conv) => visit(conv),
            Self::Block(block) => block.walk(visit),
            Self::Attention(attention) => attention.walk(visit),
            Self::Out(norm, conv) => {
                visit(norm);
                visit(conv);
            }
            Self::TinyEnd(end) => end.walk(visit),
            Self::TinyBlock(block) => block.walk(visit),
        }
    }
}

/// One direction of the autoencoder.
#[derive(Debug)]
pub(super) struct Stages(Vec<Stage>);

impl Stages {
    /// (1, H, W, 3) to (1, h, w, 2·latent channels), before the quantisation convolution.
    pub(super) fn encoder(config: &VaeConfig, from: &LayerSource<'_>) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let conv_in = Conv2d::new(config.in_channels, widths[0], Stride::One, &from.pp("conv_in"))?;
        let mut stages = vec![Stage::Conv(conv_in)];
        for (i, &output) in widths.iter().enumerate() {
            let from = from.pp("down_blocks").pp(i);
            let input = widths[i.saturating_sub(1)];
            stages.extend(level(config, config.layers_per_block, (input, output), &from)?);
            if i < last {
                let from = from.pp("downsamplers").pp(0).pp("conv");
                stages.push(Stage::Conv(Conv2d::new(
                    output,
                    output,
                    Stride::TwoPaddedAfter,
                    &from,
                )?));
            }
        }
        stages.extend(middle(config, widths[last], &from.pp("mid_block"))?);
        stages.push(out(config, (widths[last], 2 * config.latent_channels), from)?);
        Ok(Self(stages))
    }

    /// (1, h, w, latent channels) to (1, H, W, 3), after the post-quantisation convolution.
    pub(super) fn decoder(config: &VaeConfig, from: &LayerSource<'_>) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let conv_in = Conv2d::new(
            config.latent_channels,
            widths[last],
            Stride::One,
            &from.pp("conv_in"),
        )?;
        let mut stages = vec![Stage::Conv(conv_in)];
        stages.extend(middle(config, widths[last], &from.pp("mid_block"))?);
        // Counted from the innermost level, as the files count them.
        for i in 0..=last {
            let from = from.pp("up_blocks").pp(i);
            let output = widths[last - i];
            let input = widths[(last - i + 1).min(last)];
            stages.extend(level(
                config,
                config.layers_per_block + 1,
                (input, output),
                &from,
            )?);
            if i < last {
                let from = from.pp("upsamplers").pp(0).pp("conv");
                stages.push(Stage::Up(Conv2d::new(output, output, Stride::One, &from)?));
            }
        }
        stages.push(out(config, (widths[0], config.out_channels), from)?);
        Ok(Self(stages))
    }

    /// (1, H, W, 3) in -1..1 to (1, h, w, latent channels).
    pub(super) fn tiny_encoder(
        config: &VaeConfig,
        tiny: &TinyConfig,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let (layers, width) = (from.pp("layers"), tiny.width);
        let mut stages = Vec::new();
        let innermost = tiny.encoder_blocks.len() - 1;
        for (level, blocks) in tiny.encoder_blocks.iter().enumerate() {
            let from = layers.pp(stages.len());
            stages.push(match level {
                0 => {
                    let conv = Conv2d::new(config.in_channels, width, Stride::One, &from)?;
                    Stage::TinyEnd(tiny::End::Image(conv))
                }
                _ => Stage::Conv(Conv2d::without_bias(width, width, Stride::Two, &from)?),
            });
            for _ in 0..*blocks {
                let from = layers.pp(stages.len());
                let block = tiny::Block::new(width, tiny.inner_norm && level == innermost, &from)?;
                stages.push(Stage::TinyBlock(Box::new(block)));
            }
        }
        let from = layers.pp(stages.len());
        stages.push(Stage::Conv(Conv2d::new(
            width,
            config.latent_channels,
            Stride::One,
            &from,
        )?));
        Ok(Self(stages))
    }

    /// (1, h, w, latent channels) to (1, H, W, 3) in -1..1.
    pub(super) fn tiny_decoder(
        config: &VaeConfig,
        tiny: &TinyConfig,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let (layers, width) = (from.pp("layers"), tiny.width);
        let conv = Conv2d::new(config.latent_channels, width, Stride::One, &layers.pp(0))?;
        let mut stages = vec![Stage::TinyEnd(tiny::End::Latent(conv))];
        // The first ReLU has a number of its own, and so has each enlargement.
        let mut number = 2;
        let outermost = tiny.decoder_blocks.len() - 1;
        for (level, blocks) in tiny.decoder_blocks.iter().enumerate() {
            for _ in 0..*blocks {
                let block = tiny::Block::new(width, tiny.inner_norm && level == 0, &layers.pp(number))?;
                stages.push(Stage::TinyBlock(Box::new(block)));
                number += 1;
            }
            if level < outermost {
                let from = layers.pp(number + 1);
                stages.push(Stage::Up(Conv2d::without_bias(width, width, Stride::One, &from)?));
                number += 2;
            }
        }
        let conv = Conv2d::new(width, config.out_channels, Stride::One, &layers.pp(number))?;
        stages.push(Stage::TinyEnd(tiny::End::Out(conv)));
        Ok(Self(stages))
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Runs one of them.
    pub(super) fn run(&self, stage: usize, x: Tensor) -> Result<Tensor> {
        self.0[stage].forward(x)
    }

    /// Their layers.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        self.0.iter().for_each(|stage| stage.walk(visit));
    }
}

/// The residual blocks of one level, of which the first changes the width.
fn level(
    config: &VaeConfig,
    blocks: usize,
    (input, output): (usize, usize),
    from: &LayerSource<'_>,
) -> Result<Vec<Stage>> {
    let block = |j: usize| {
        let input = if j == 0 { input } else { output };
        let block = ResBlock::new(config, input, output, &from.pp("resnets").pp(j))?;
        Ok(Stage::Block(Box::new(block)))
    };
    (0..blocks).map(block).collect()
}

/// The innermost part: block, one-headed attention over all pixels, block.
fn middle(config: &VaeConfig, width: usize, from: &LayerSource<'_>) -> Result<Vec<Stage>> {
    let block = |j: usize| {
        let block = ResBlock::new(config, width, width, &from.pp("resnets").pp(j));
        block.map(Box::new).map(Stage::Block)
    };
    let mut stages = vec![block(0)?];
    if config.mid_block_add_attention {
        let attention = AttentionBlock::new(config, width, &from.pp("attentions").pp(0))?;
        stages.push(Stage::Attention(Box::new(attention)));
    }
    stages.push(block(1)?);
    Ok(stages)
}

fn out(config: &VaeConfig, (input, output): (usize, usize), from: &LayerSource<'_>) -> Result<Stage> {
    let norm = norm(config, input, &from.pp("conv_norm_out"))?;
    let conv = Conv2d::new(input, output, Stride::One, &from.pp("conv_out"))?;
    Ok(Stage::Out(norm, conv))
}
