//! The kernels of the CPU by themselves, on candle's tensors: what the layers of this crate are made of there. For benches
//! and tests.

pub use crate::attention::{attend, attend_in_bf16};
pub use crate::conv2d::{Conv2d, ConvFusion, multiplications};
pub use crate::layout::{channels_first, channels_last, join_channels};
pub use crate::matrix::{Branch, Linear};
pub use crate::norm::{GroupNorm, LayerNorm, Normalisation};
pub use crate::tome::TokenMerge;
