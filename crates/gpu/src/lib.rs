//! A CUDA device, and nothing about networks: its memory, tensors in it, and programs of kernels and library calls.
//!
//! A computation is recorded once for a set of shapes ([`Program::record`]) and then run as often as needed; recording takes
//! no memory, and says exactly how much a run will take. Images are (B, h, w, C), channels innermost, in f32 or in f16 with
//! sums in f32. What a row becomes does not depend on the other rows.
//!
//! The kernels between convolutions and products are our own (`src/kernels`). The emulated device compiles the very same
//! sources for the host and runs them thread by thread, so that tests need no GPU. Nothing here has run on a GPU yet.

#![expect(
    unsafe_code,
    reason = "a device's memory and its driver are raw addresses and C calls"
)]

mod arena;
mod command;
mod data;
mod device;
mod driver;
mod error;
mod kernels;
mod ops;
#[cfg(feature = "cuda")]
mod plans;
mod program;
mod tape;
mod tensor;
#[cfg(test)]
mod testing;

pub use data::{DType, HostData};
pub use device::{Gpu, GpuId};
pub use driver::Description;
#[cfg(feature = "emulated")]
pub use driver::emulated::{Emulation, ThreadOrder};
#[cfg(feature = "emulated")]
pub use driver::faults::{Fault, PlannedFault};
pub use error::{Error, Result};
pub use ops::{
    Activation, AttnMask, Conv2d, ConvShape, GroupNorm, LayerNorm, LayerOfSets, Linear, LowRank, LowRankSet,
    TokenMerge, activate, add, add_low_rank, add_scaled, affine, attend, cat_rows, channels_first,
    channels_last, columns, convert, gather, geglu, join_channels, upsample,
};
pub use program::{Input, InputShape, Program};
pub use tensor::Tensor;
