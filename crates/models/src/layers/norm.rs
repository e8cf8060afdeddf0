//! Group and layer normalisation.

use candle_core::Result;
use candle_nn::VarBuilder;
use pentimento_kernels::{GroupNorm, LayerNorm};

/// The group norm of `width` channels at `vb`.
pub(crate) fn group_norm(groups: usize, width: usize, eps: f64, vb: &VarBuilder<'_>) -> Result<GroupNorm> {
    GroupNorm::new(&vb.get(width, "weight")?, &vb.get(width, "bias")?, groups, eps)
}

/// The layer norm of `width` numbers at `vb`.
pub(crate) fn layer_norm(width: usize, eps: f32, vb: &VarBuilder<'_>) -> Result<LayerNorm> {
    LayerNorm::new(&vb.get(width, "weight")?, &vb.get(width, "bias")?, eps)
}
