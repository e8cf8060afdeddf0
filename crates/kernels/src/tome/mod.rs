//! Token merging (Bolya and Hoffman, "Token Merging for Fast Stable Diffusion", 2023): tokens that are almost alike are
//! averaged before an expensive layer, and the layer's result for the average is copied to all of them.
//!
//! As the package `tomesd` 0.1.3 with `use_rand=False`; `docs/adr/0005-token-merging.md` says why without chance. Two
//! deviations: kept tokens stay in the order of the image, which attention does not see, and a token of zeros
//! alone has similarity 0 to all others, where the package divides by zero.

mod groups;
mod similarity;
mod split;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use self::groups::Groups;
use self::similarity::most_similar;
use self::split::Split;
use crate::buffer::{SharedPtr, written};
use crate::isa::Isa;
use crate::values::{slice, values};

/// Tokens of a task, at least.
const TOKENS: usize = 64;

/// Which tokens of each row become one.
#[derive(Debug)]
pub struct TokenMerge {
    rows: Vec<Groups>,
    tokens: usize,
    kept: usize,
}

impl TokenMerge {
    /// Chooses `merged` tokens of each row of `x` (B, h·w, C), contiguous f32, to be merged into another: those with the
    /// smallest angle to the first token of a 2x2 cell. None where there is nothing to merge.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is not contiguous f32 on the CPU.
    pub fn choose(x: &Tensor, (h, w): (usize, usize), merged: usize) -> Result<Option<Self>> {
        Self::choose_with(Isa::detect(), x, (h, w), merged)
    }

    fn choose_with(isa: Isa, x: &Tensor, (h, w): (usize, usize), merged: usize) -> Result<Option<Self>> {
        let (_, tokens, width) = x.dims3()?;
        if tokens != h * w || tokens * width == 0 {
            candle_core::bail!("merging the tokens of {:?} as {h} lines of {w}", x.dims())
        }
        let split = Split::new(h, w);
        let merged = merged.min(split.sources.len());
        if merged == 0 || split.destinations.is_empty() {
            return Ok(None);
        }
        let x = values(x)?;
        let rows = x.get().par_chunks(tokens * width).map(|row| {
            let found = most_similar(isa, row, width, &split);
            Groups::new(&split, &found, merged)
        });
        Ok(Some(Self {
            rows: rows.collect(),
            tokens,
            kept: tokens - merged,
        }))
    }

    /// For each token of each row the position of its average in the result of [`TokenMerge::merge`].
    pub fn places(&self) -> impl Iterator<Item = &[usize]> {
        self.rows.iter().map(Groups::places)
    }

    /// The means of the tokens of `x` (B, N, C) that become one: (B, kept, C), in the order of the image.
    ///
    /// # Errors
    /// When the shape is not that which the tokens were chosen from, or `x` is not contiguous f32 on the CPU.
    pub fn merge(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&MergeOp(self))
    }

    /// Copies the results for the averages, `x` (B, kept, C), to all their tokens and adds `residual` (B, N, C).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is not contiguous f32 on the CPU.
    pub fn unmerge(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        x.apply_op2_no_bwd(residual, &UnmergeOp(self))
    }

    /// The width of (B, `tokens`, C), if that is the shape.
    fn width(&self, layout: &Layout, tokens: usize) -> Result<usize> {
        match *layout.dims() {
            [rows, found, width] if rows == self.rows.len() && found == tokens && width > 0 => Ok(width),
            _ => candle_core::bail!(
                "merged tokens of shape {:?}, not ({}, {tokens}, C)",
                layout.dims(),
                self.rows.len()
            ),
        }
    }
}

struct MergeOp<'a>(&'a TokenMerge);

impl CustomOp1 for MergeOp<'_> {
    fn name(&self) -> &'static str {
        "merge-tokens"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let TokenMerge { rows, tokens, kept } = self.0;
        let width = self.0.width(layout, *tokens)?;
        let x = slice(x, layout)?;
        let out = each_token(rows.len() * kept, width, |i, out| {
            let (row, place) = (i / kept, i % kept);
            mean(
                &x[row * tokens * width..][..tokens * width],
                rows[row].members(place),
                out,
            );
        });
        Ok((CpuStorage::F32(out), Shape::from((rows.len(), *kept, width))))
    }
}

/// The mean of some tokens of `x`, at least one, added in the order in which they are given.
fn mean(x: &[f32], members: &[usize], out: &mut [f32]) {
    let width = out.len();
    let token = |token: usize| &x[token * width..][..width];
    out.copy_from_slice(token(members[0]));
    if members.len() == 1 {
        return;
    }
    for &other in &members[1..] {
        for (out, x) in out.iter_mut().zip(token(other)) {
            *out += x;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "an image has fewer than 2^24 tokens")]
    let count = members.len() as f32;
    for out in out {
        *out /= count;
    }
}

struct UnmergeOp<'a>(&'a TokenMerge);

impl CustomOp2 for UnmergeOp<'_> {
    fn name(&self) -> &'static str {
        "unmerge-tokens"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let TokenMerge { rows, tokens, kept } = self.0;
        let width = self.0.width(x_layout, *kept)?;
        if self.0.width(residual_layout, *tokens)? != width {
            candle_core::bail!(
                "unmerging {:?} beside {:?}",
                x_layout.dims(),
                residual_layout.dims()
            )
        }
        let (x, residual) = (slice(x, x_layout)?, slice(residual, residual_layout)?);
        let out = each_token(rows.len() * tokens, width, |i, out| {
            let (row, token) = (i / tokens, i % tokens);
            let x = &x[(row * kept + rows[row].places()[token]) * width..][..width];
            for ((out, residual), x) in out.iter_mut().zip(&residual[i * width..][..width]).zip(x) {
                *out = residual + x;
            }
        });
        Ok((CpuStorage::F32(out), residual_layout.shape().clone()))
    }
}

/// `count` tokens of `width` numbers, each written by `fill`, which is given its number.
fn each_token(count: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let all = |out: *mut f32| {
        let out = SharedPtr::new(out);
        (0..count).into_par_iter().with_min_len(TOKENS).for_each(|i| {
            // SAFETY: token `i` of the result is this task's alone.
            fill(i, unsafe {
                std::slice::from_raw_parts_mut(out.get().add(i * width), width)
            });
        });
    };
    // SAFETY: both callers write every number of every token.
    unsafe { written(count * width, all) }
}
