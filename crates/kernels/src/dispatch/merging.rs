//! Token merging, where the tokens are.

use crate::{KernelError, Result, Tensor, tome};

/// Which tokens of each row become one.
#[derive(Debug)]
pub struct TokenMerge(Form);

#[derive(Debug)]
enum Form {
    Cpu(tome::TokenMerge),
}

impl TokenMerge {
    /// Chooses `merged` tokens of each row of `x` (B, h·w, C) to be merged into another: those with the smallest angle to
    /// the first token of a 2x2 cell. None where there is nothing to merge.
    ///
    /// # Errors
    /// When the shape does not fit; [`KernelError::OnlyOnCpu`] on a GPU.
    pub fn choose(x: &Tensor, size: (usize, usize), merged: usize) -> Result<Option<Self>> {
        match x {
            Tensor::Host(x) => {
                let chosen = tome::TokenMerge::choose(x, size, merged)?;
                Ok(chosen.map(|chosen| Self(Form::Cpu(chosen))))
            }
            Tensor::Gpu(_) => Err(KernelError::OnlyOnCpu {
                what: "token merging",
            }),
        }
    }

    /// The means of the tokens of `x` (B, N, C) that become one: (B, kept, C), in the order of the image.
    ///
    /// # Errors
    /// When the shape is not that which the tokens were chosen from, or `x` is elsewhere.
    pub fn merge(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Form::Cpu(merge) => Ok(Tensor::Host(merge.merge(x.host()?)?)),
        }
    }

    /// Copies the results for the averages, `x` (B, kept, C), to all their tokens and adds `residual` (B, N, C).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is elsewhere.
    pub fn unmerge(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Form::Cpu(merge) => Ok(Tensor::Host(merge.unmerge(x.host()?, residual.host()?)?)),
        }
    }
}
