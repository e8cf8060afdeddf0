//! Matrix layers: rows of numbers times packed weights, with bias, activation and residual applied while the result is
//! still in the first cache.

mod finish;
mod linear;
mod multiply;
mod product;
#[cfg(test)]
mod tests;

pub(crate) use finish::{Finish, Target};
pub(crate) use linear::pad_bias;
pub use linear::{Activation, Linear};
pub(crate) use multiply::Multiply;
