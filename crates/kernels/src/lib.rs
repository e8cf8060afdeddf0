//! The arithmetic of the networks on a CPU, as custom operations of candle.
//!
//! Images are (B, h, w, C), channels innermost, from end to end; weights are packed once, when a network is loaded.
//! Each kernel is written once and compiled for every instruction set that [`Isa`] knows; the best one that the machine
//! has is used. A result depends on the numbers and the shape of its own row only: not on the other rows of a batch,
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
mod isa;
mod layout;
mod matrix;
mod norm;
mod packed;
mod peak;
mod pieces;
mod pool;
mod relu;
mod simd;
#[cfg(test)]
mod testing;
mod tome;
mod values;

pub use attention::{AttnMask, attend};
#[doc(hidden)]
pub use conv2d::multiplications;
pub use conv2d::{Conv2d, ConvFusion, Padding};
pub use isa::Isa;
pub use layout::{channels_first, channels_last, join_channels};
pub use matrix::{Activation, Branch, Linear};
pub use norm::{GroupNorm, LayerNorm, Normalisation};
#[doc(hidden)]
pub use peak::multiply_adds;
pub use pool::on_pool;
pub use relu::relu;
pub use tome::TokenMerge;
