//! The layers that all networks are built of: named weights on one side, the kernels on the other. Pictures are
//! (B, h, w, C), tokens (B, T, D).

mod conv;
mod linear;
mod norm;

pub(crate) use conv::{Step, conv, normalised, shortcut};
pub(crate) use linear::{geglu, linear, linear_without_bias, pointwise};
pub(crate) use norm::{group_norm, layer_norm};
