//! Group and layer normalisation.

mod group;
mod layer;
#[cfg(test)]
mod tests;

pub(crate) use group::{Coefficients, apply, apply_with};
pub use group::{GroupNorm, Normalisation};
pub use layer::LayerNorm;
