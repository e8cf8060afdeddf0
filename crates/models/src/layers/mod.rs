//! The layers that all networks are built of, each batch invariant.

mod attention;
mod conv;
mod linear;
mod norm;

pub(crate) use attention::attend;
pub(crate) use conv::{Conv, upsample_to};
pub(crate) use linear::{Linear, Pointwise};
pub(crate) use norm::{GroupNorm, LayerNorm};
