//! The layers that networks are made of, each on the [`Device`] that it is made for, and the kernels of the CPU, as custom
//! operations of candle.
//!
//! Images are (B, h, w, C), channels innermost, from end to end; weights are packed once, when a network is loaded.
//! Each kernel is written once and compiled for every instruction set that [`Isa`] knows; the best one that the machine
//! has is used. On a GPU a layer writes down what `pentimento-gpu` computes. A result depends on the numbers and the shape of its own row only: not on the other rows of a batch,
//! not on the number of threads. `README.md` beside this crate tells how each kernel works and how fast it is.

#![expect(
    unsafe_code,
    reason = "vector instructions and unchecked addressing are what this crate is for"
)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel's inner loop is one argument about addresses, made once above it"
)]

mod attention;
mod buffer;
mod conv2d;
pub mod cpu;
mod device;
mod dispatch;
mod embedding;
mod error;
mod isa;
mod layout;
mod matrix;
mod norm;
mod packed;
mod pairs;
mod peak;
mod pieces;
mod pool;
mod program;
mod relu;
mod simd;
mod source;
mod tensor;
#[cfg(test)]
mod testing;
mod tome;
mod values;

pub use attention::AttnMask;
pub use conv2d::Padding;
pub use device::{Device, DeviceLocation, GpuDevice, Precision};
pub use dispatch::{
    Branch, BranchSet, Conv2d, ConvFusion, GroupNorm, LayerNorm, Linear, Normalisation, RowSets,
    SingleHeadAttention, TokenMerge, attend, channels_first, channels_last, join_channels, relu,
};
pub use embedding::Embedding;
pub use error::{KernelError, Result};
pub use isa::Isa;
pub use matrix::Activation;
#[doc(hidden)]
pub use peak::{multiply_adds, pair_multiply_adds};
pub use pool::on_pool;
pub use program::{
    IndexPlace, InputList, Inputs, ProgramMemory, Programs, ProgramsId, SetsPlace, TensorPlace,
};
pub use source::LayerSource;
pub use tensor::{HostTensor, RowIndex, Tensor, host_tensor, to_f32};
