//! Token merging around an attention. It has no weights, and yet it is computed where the layers are.

use pentimento_kernels::{self as kernels, Result, Tensor};

/// Which tokens of each row become one.
#[derive(Debug)]
pub(crate) struct TokenMerge(kernels::TokenMerge);

impl TokenMerge {
    /// Chooses `merged` tokens of each row of `x` (B, h·w, C) that become part of the token most like them. None where
    /// there is nothing to merge.
    pub(crate) fn choose(x: &Tensor, size: (usize, usize), merged: usize) -> Result<Option<Self>> {
        Ok(kernels::TokenMerge::choose(x, size, merged)?.map(Self))
    }

    /// The means of the tokens of `x` (B, N, C) that become one: (B, kept, C).
    pub(crate) fn merge(&self, x: &Tensor) -> Result<Tensor> {
        self.0.merge(x)
    }

    /// Gives every token the result of its mean, `x` (B, kept, C), and adds `residual` (B, N, C).
    pub(crate) fn unmerge(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.0.unmerge(x, residual)
    }
}
