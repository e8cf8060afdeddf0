//! What can be done with tensors. Each operation checks its operands' shapes, takes room for its result and writes a
//! launch or a call down; nothing is computed before the program runs.
//!
//! At least one operand belongs to the program that is being recorded; the others may be kept.

mod attention;
mod convolution;
mod elementwise;
mod layout;
mod linear;
mod low_rank;
mod norm;
mod record;
#[cfg(test)]
mod tests;
mod token_merge;
mod weights;

pub use attention::{AttnMask, attend};
pub use convolution::{Conv2d, ConvShape};
pub use elementwise::{Activation, activate, add, add_scaled, affine, convert, geglu};
pub use layout::{cat_rows, channels_first, channels_last, columns, gather, join_channels, upsample};
pub use linear::Linear;
pub use low_rank::{LayerOfSets, LowRank, LowRankSet, add_low_rank};
pub use norm::{GroupNorm, LayerNorm};
pub use token_merge::TokenMerge;
