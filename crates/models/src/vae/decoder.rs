//! Latent to picture.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::VaeConfig;
use super::blocks::{MidBlock, ResBlock, norm};
use crate::layers::{Conv, GroupNorm, upsample_to};

/// (1, latent channels, h, w) to (1, 3, H, W), after the post-quantisation convolution.
#[derive(Debug)]
pub(super) struct Decoder {
    conv_in: Conv,
    mid: MidBlock,
    levels: Vec<(Vec<ResBlock>, Option<Conv>)>,
    norm_out: GroupNorm,
    conv_out: Conv,
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        // Counted from the innermost level, as the files count them.
        let level = |i: usize| -> Result<_> {
            let vb = vb.pp("up_blocks").pp(i);
            let output = widths[last - i];
            let input = widths[(last - i + 1).min(last)];
            let block = |j: usize| {
                let input = if j == 0 { input } else { output };
                ResBlock::new(config, input, output, &vb.pp("resnets").pp(j))
            };
            let blocks = (0..=config.layers_per_block).map(block).collect::<Result<_>>()?;
            let conv = || Conv::same(output, output, &vb.pp("upsamplers").pp(0).pp("conv"));
            Ok((blocks, (i < last).then(conv).transpose()?))
        };
        Ok(Self {
            conv_in: Conv::same(config.latent_channels, widths[last], &vb.pp("conv_in"))?,
            mid: MidBlock::new(config, widths[last], &vb.pp("mid_block"))?,
            levels: (0..widths.len()).map(level).collect::<Result<_>>()?,
            norm_out: norm(config, widths[0], &vb.pp("conv_norm_out"))?,
            conv_out: Conv::same(widths[0], config.out_channels, &vb.pp("conv_out"))?,
        })
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let mut x = self.mid.forward(&self.conv_in.forward(z)?)?;
        for (blocks, upsample) in &self.levels {
            for block in blocks {
                x = block.forward(&x)?;
            }
            if let Some(conv) = upsample {
                let (_, _, h, w) = x.dims4()?;
                x = conv.forward(&upsample_to(&x, (2 * h, 2 * w))?)?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&x)?)
    }
}
