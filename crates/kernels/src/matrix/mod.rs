//! Matrix layers: rows of numbers times packed weights, with bias, activation and residual applied while the result is
//! still in the L1 cache.

mod epilogue;
mod linear;
mod multiply;
mod pairs;
mod product;
#[cfg(test)]
mod tests;

pub use epilogue::Activation;
pub(crate) use epilogue::{Epilogue, Target};
pub(crate) use linear::pad_bias;
pub use linear::{Branch, Linear};
pub(crate) use multiply::Multiply;
pub(crate) use product::Operands;
