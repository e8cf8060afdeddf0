//! Group and layer normalisation.

mod group;
mod layer;
#[cfg(test)]
mod tests;

pub use group::{GroupNorm, Normalisation};
pub(crate) use group::{apply, apply_with};
pub use layer::LayerNorm;
