//! What encoder and decoder share: residual blocks, the attention in the middle, and the norms' epsilon.

use super::config::VaeConfig;
use crate::layers::{
    Conv2d, ConvFusion, GroupNorm, Layer, LayerSource, Linear, Result, SingleHeadAttention, Stride, Tensor,
    shortcut,
};

/// A group norm of the autoencoder, whose epsilon is fixed in the reference.
pub(super) fn norm(config: &VaeConfig, width: usize, from: &LayerSource<'_>) -> Result<GroupNorm> {
    GroupNorm::new(config.norm_num_groups, width, 1e-6, from)
}

/// Two convolutions and a residual.
#[derive(Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Linear>,
}

impl ResBlock {
    pub(super) fn new(
        config: &VaeConfig,
        input: usize,
        output: usize,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let shortcut = || Linear::pointwise(input, output, &from.pp("conv_shortcut"));
        Ok(Self {
            norm1: norm(config, input, &from.pp("norm1"))?,
            conv1: Conv2d::new(input, output, Stride::One, &from.pp("conv1"))?,
            norm2: norm(config, output, &from.pp("norm2"))?,
            conv2: Conv2d::new(output, output, Stride::One, &from.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `x` is freed as soon as it is not needed: on a large image it is the largest of four tensors.
    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let fusion = ConvFusion {
            norm: Some(&self.norm1),
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

    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        visit(&self.norm1);
        visit(&self.conv1);
        visit(&self.norm2);
        visit(&self.conv2);
        if let Some(shortcut) = &self.shortcut {
            visit(shortcut);
        }
    }
}

/// A norm, one-headed attention, a residual.
#[derive(Debug)]
pub(super) struct AttentionBlock {
    norm: GroupNorm,
    attention: SingleHeadAttention,
}

impl AttentionBlock {
    pub(super) fn new(config: &VaeConfig, width: usize, from: &LayerSource<'_>) -> Result<Self> {
        Ok(Self {
            norm: norm(config, width, &from.pp("group_norm"))?,
            attention: SingleHeadAttention::new(width, from)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let tokens = self.norm.forward(x)?.reshape(&[b, h * w, c])?;
        self.attention.forward_add(&tokens, x)
    }

    pub(super) fn walk(&self, visit: &mut dyn FnMut(&dyn Layer)) {
        visit(&self.norm);
        visit(&self.attention);
    }
}
