//! Latent to image.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::blocks::{MidBlock, ResBlock, norm};
use super::config::VaeConfig;
use crate::layers::{Conv2d, ConvFusion, GroupNorm, Layer, Stride};

/// (1, h, w, latent channels) to (1, H, W, 3), after the post-quantisation convolution.
#[derive(Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    levels: Vec<(Vec<ResBlock>, Option<Conv2d>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
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
            let conv = || Conv2d::new(output, output, Stride::One, &vb.pp("upsamplers").pp(0).pp("conv"));
            Ok((blocks, (i < last).then(conv).transpose()?))
        };
        Ok(Self {
            conv_in: Conv2d::new(
                config.latent_channels,
                widths[last],
                Stride::One,
                &vb.pp("conv_in"),
            )?,
            mid: MidBlock::new(config, widths[last], &vb.pp("mid_block"))?,
            levels: (0..widths.len()).map(level).collect::<Result<_>>()?,
            norm_out: norm(config, widths[0], &vb.pp("conv_norm_out"))?,
            conv_out: Conv2d::new(widths[0], config.out_channels, Stride::One, &vb.pp("conv_out"))?,
        })
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let mut x = self
            .mid
            .forward(self.conv_in.forward(z, ConvFusion::default())?)?;
        for (blocks, upsample) in &self.levels {
            for block in blocks {
                x = block.forward(x)?;
            }
            if let Some(conv) = upsample {
                let (_, h, w, _) = x.dims4()?;
                let fusion = ConvFusion {
                    upsample: Some((2 * h, 2 * w)),
                    ..ConvFusion::default()
                };
                x = conv.forward(&x, fusion)?;
            }
        }
        let fusion = ConvFusion {
            norm: Some(&self.norm_out),
            ..ConvFusion::default()
        };
        self.conv_out.forward(&x, fusion)
    }

    /// Its layers.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        visit(&self.conv_in);
        self.mid.walk(visit);
        for (blocks, upsample) in &self.levels {
            blocks.iter().for_each(|block| block.walk(visit));
            if let Some(upsample) = upsample {
                visit(upsample);
            }
        }
        visit(&self.norm_out);
        visit(&self.conv_out);
    }
}
