//! Token merging, where the tokens are.

use pentimento_gpu as gpu;

use crate::{Result, Tensor, tome};

/// Which tokens of each row become one.
#[derive(Debug)]
pub struct TokenMerge(Form);

#[derive(Debug)]
enum Form {
    Cpu(tome::TokenMerge),
    Gpu(gpu::TokenMerge),
}

impl TokenMerge {
    /// Chooses `merged` tokens of each row of `x` (B, h·w, C) to be merged into another: those with the smallest angle to
    /// the first token of a 2x2 cell. None where there is nothing to merge, which the shape alone decides.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn choose(x: &Tensor, size: (usize, usize), merged: usize) -> Result<Option<Self>> {
        let chosen = match x {
            Tensor::Host(x) => tome::TokenMerge::choose(x, size, merged)?.map(Form::Cpu),
            Tensor::Gpu(x) => gpu::TokenMerge::choose(x, size, merged)?.map(Form::Gpu),
        };
        Ok(chosen.map(Self))
    }

    /// The means of the tokens of `x` (B, N, C) that become one: (B, kept, C), in the order of the image.
    ///
    /// # Errors
    /// When the shape is not that which the tokens were chosen from, or `x` is elsewhere.
    pub fn merge(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Form::Cpu(merge) => Ok(Tensor::Host(merge.merge(x.host()?)?)),
            Form::Gpu(merge) => Ok(Tensor::Gpu(merge.merge(x.gpu()?)?)),
        }
    }

    /// Copies the results for the averages, `x` (B, kept, C), to all their tokens and adds `residual` (B, N, C).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is elsewhere.
    pub fn unmerge(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Form::Cpu(merge) => Ok(Tensor::Host(merge.unmerge(x.host()?, residual.host()?)?)),
            Form::Gpu(merge) => Ok(Tensor::Gpu(merge.unmerge(x.gpu()?, residual.gpu()?)?)),
        }
    }
}
