//! What the networks call. A layer has its weights in the form of one device, chosen when it is made, and takes tensors that
//! are there; the networks do not know which.

mod attention;
mod branch;
mod conv2d;
mod images;
mod linear;
mod merging;
mod norm;
mod single_head;
mod weights;

pub use attention::attend;
pub use branch::{Branch, BranchSet, RowSets};
pub use conv2d::{Conv2d, ConvFusion};
pub use images::{channels_first, channels_last, join_channels, relu};
pub use linear::Linear;
pub use merging::TokenMerge;
pub use norm::{GroupNorm, LayerNorm, Normalisation};
pub use single_head::SingleHeadAttention;
