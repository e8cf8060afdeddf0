//! Image to moments.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::blocks::{MidBlock, ResBlock, norm};
use super::config::VaeConfig;
use crate::layers::{Conv2d, ConvFusion, GroupNorm, Layer, Stride};

/// (1, H, W, 3) to (1, h, w, 2·latent channels), before the quantisation convolution.
#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    levels: Vec<(Vec<ResBlock>, Option<Conv2d>)>,
    mid: MidBlock,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(config: &VaeConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let level = |i: usize| -> Result<_> {
            let vb = vb.pp("down_blocks").pp(i);
            let (input, output) = (widths[i.saturating_sub(1)], widths[i]);
            let block = |j: usize| {
                let input = if j == 0 { input } else { output };
                ResBlock::new(config, input, output, &vb.pp("resnets").pp(j))
            };
            let blocks = (0..config.layers_per_block).map(block).collect::<Result<_>>()?;
            let downsample = || {
                Conv2d::new(
                    output,
                    output,
                    Stride::TwoPaddedAfter,
                    &vb.pp("downsamplers").pp(0).pp("conv"),
                )
            };
            Ok((blocks, (i < last).then(downsample).transpose()?))
        };
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, widths[0], Stride::One, &vb.pp("conv_in"))?,
            levels: (0..widths.len()).map(level).collect::<Result<_>>()?,
            mid: MidBlock::new(config, widths[last], &vb.pp("mid_block"))?,
            norm_out: norm(config, widths[last], &vb.pp("conv_norm_out"))?,
            conv_out: Conv2d::new(
                widths[last],
                2 * config.latent_channels,
                Stride::One,
                &vb.pp("conv_out"),
            )?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x, ConvFusion::default())?;
        for (blocks, downsample) in &self.levels {
            for block in blocks {
                x = block.forward(x)?;
            }
            if let Some(downsample) = downsample {
                x = downsample.forward(&x, ConvFusion::default())?;
            }
        }
        let x = self.mid.forward(x)?;
        let fusion = ConvFusion {
            norm: Some(&self.norm_out),
            ..ConvFusion::default()
        };
        self.conv_out.forward(&x, fusion)
    }

    /// Its layers.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        visit(&self.conv_in);
        for (blocks, downsample) in &self.levels {
            blocks.iter().for_each(|block| block.walk(visit));
            if let Some(downsample) = downsample {
                visit(downsample);
            }
        }
        self.mid.walk(visit);
        visit(&self.norm_out);
        visit(&self.conv_out);
    }
}
