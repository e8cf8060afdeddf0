//! Token merging, as `pentimento-kernels` does it on a CPU: which tokens become one is found on the device.

use super::record::{Record, THREADS};
use crate::data::DType;
use crate::error::Result;
use crate::tensor::Tensor;

/// Threads of a block, as numbers of tensors are counted.
const BLOCK: usize = THREADS as usize;

/// Tokens of a warp and numbers of a slice in `token_merge.cu`.
const TOKENS: usize = 4;
const SLICE: usize = 64;

/// Warps of a block, and destinations that they compare with at a time.
const WARPS: usize = 4;
const LANES: usize = 32;

/// Which tokens of each row become one.
#[derive(Clone, Debug)]
pub struct TokenMerge {
    /// (B, N): the place of each token's mean.
    places: Tensor,
    /// (B, K): the token of each place.
    kept: Tensor,
    /// (B, N): chains of members.
    next: Tensor,
}

impl TokenMerge {
    /// Chooses `merged` tokens of each row of `x` (B, h·w, C) to be merged into another: those with the smallest angle to the
    /// first token of a 2x2 cell. None where there is nothing to merge, which the shape alone decides.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is no float tensor of the program.
    pub fn choose(x: &Tensor, (h, w): (usize, usize), merged: usize) -> Result<Option<Self>> {
        let record = Record::new("token merging", [x])?;
        let dtype = record.float([x])?;
        let &[rows, tokens, width] = x.shape() else {
            return Err(record.mismatch("(B, N, C) is needed"));
        };
        let fits = tokens == h * w && width > 0 && rows > 0;
        record.ensure(fits, format_args!("{h} lines of {w} tokens are needed"))?;
        let destinations = (h / 2) * (w / 2);
        let merged = merged.min(tokens - destinations);
        if merged == 0 || destinations == 0 {
            return Ok(None);
        }
        let per_token = |dtype| record.result(&[rows, tokens], dtype);
        let (lengths, scores, best) = (
            per_token(DType::F32)?,
            per_token(DType::F32)?,
            per_token(DType::I32)?,
        );
        record
            .launch("inverse_lengths", dtype)
            .tensor(x)
            .tensor(&lengths)
            .int(rows * tokens)
            .int(width)
            .grid([(rows * tokens).div_ceil(BLOCK / LANES), 1, 1])?;
        let shared = LANES * (SLICE + 1) + WARPS * TOKENS * SLICE;
        record
            .launch("merge_similarity", dtype)
            .tensor(x)
            .tensor(&lengths)
            .tensor(&scores)
            .tensor(&best)
            .int(h)
            .int(w)
            .int(width)
            .threads(THREADS / 2)
            .shared_bytes(shared * size_of::<f32>())
            .grid([tokens.div_ceil(WARPS * TOKENS), rows, 1])?;
        let target = per_token(DType::I32)?;
        record
            .launch_named("merge_targets".to_owned())
            .tensor(&scores)
            .tensor(&best)
            .tensor(&target)
            .int(h)
            .int(w)
            .int(merged)
            .shared_bytes(BLOCK * size_of::<f32>())
            .grid([tokens.div_ceil(BLOCK), rows, 1])?;
        let kept = record.result(&[rows, tokens - merged], DType::I32)?;
        let (places, next) = (per_token(DType::I32)?, per_token(DType::I32)?);
        record
            .launch_named("merge_places".to_owned())
            .tensor(&target)
            .tensor(&places)
            .tensor(&kept)
            .int(tokens)
            .int(tokens - merged)
            .shared_bytes(BLOCK * size_of::<i32>())
            .grid([rows, 1, 1])?;
        record
            .launch_named("merge_chains".to_owned())
            .tensor(&target)
            .tensor(&next)
            .int(tokens)
            .grid([tokens.div_ceil(BLOCK), rows, 1])?;
        Ok(Some(Self { places, kept, next }))
    }

    /// (B, N) in i32: for each token the place of its mean in the result of [`TokenMerge::merge`].
    #[must_use]
    pub fn places(&self) -> &Tensor {
        &self.places
    }

    /// The means of the tokens of `x` (B, N, C) that become one: (B, K, C), in the order of the image.
    ///
    /// # Errors
    /// When the shape is not that which the tokens were chosen from, or `x` is no float tensor of the program.
    pub fn merge(&self, x: &Tensor) -> Result<Tensor> {
        let record = Record::new("merging", [x, &self.kept, &self.next])?;
        let dtype = record.float([x])?;
        let (rows, tokens, kept) = self.sizes();
        let &[found_rows, found_tokens, width] = x.shape() else {
            return Err(record.mismatch("(B, N, C) is needed"));
        };
        record.ensure(
            (found_rows, found_tokens) == (rows, tokens),
            "the tokens were chosen from others",
        )?;
        let y = record.result(&[rows, kept, width], dtype)?;
        record
            .launch("merge", dtype)
            .tensor(x)
            .tensor(&self.kept)
            .tensor(&self.next)
            .tensor(&y)
            .long(y.elements())
            .int(tokens)
            .int(kept)
            .int(width)
            .over(y.elements())?;
        Ok(y)
    }

    /// Copies the results for the means, `x` (B, K, C), to all their tokens and adds `residual` (B, N, C).
    ///
    /// # Errors
    /// When a shape or a type does not fit.
    pub fn unmerge(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let record = Record::new("unmerging", [x, residual, &self.places])?;
        let dtype = record.float([x, residual])?;
        let (rows, tokens, kept) = self.sizes();
        let width = x.shape().last().copied().unwrap_or(0);
        let fits = x.shape() == [rows, kept, width] && residual.shape() == [rows, tokens, width];
        record.ensure(fits, "the tokens were chosen from others")?;
        let y = record.result(residual.shape(), dtype)?;
        record
            .launch("unmerge", dtype)
            .tensor(x)
            .tensor(&self.places)
            .tensor(residual)
            .tensor(&y)
            .long(y.elements())
            .int(tokens)
            .int(kept)
            .int(width)
            .over(y.elements())?;
        Ok(y)
    }

    /// Rows, tokens and kept tokens.
    fn sizes(&self) -> (usize, usize, usize) {
        let of = |tensor: &Tensor, side: usize| tensor.shape().get(side).copied().unwrap_or(0);
        (of(&self.places, 0), of(&self.places, 1), of(&self.kept, 1))
    }
}
