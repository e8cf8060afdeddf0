//! Keys and values, each head's side by side.

use rayon::prelude::*;

/// How a tensor (B, T, heads · width) divides into heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) rows: usize,
    pub(super) heads: usize,
    /// d
    pub(super) width: usize,
}

impl Heads {
    /// Where token `token` of head number `head` of all rows begins, in a tensor of `tokens` tokens a row.
    pub(super) fn at(&self, head: usize, token: usize, tokens: usize) -> usize {
        let (row, head) = (head / self.heads, head % self.heads);
        (row * tokens + token) * self.heads * self.width + head * self.width
    }

    /// Numbers from one token to the next.
    pub(super) fn next(&self) -> usize {
        self.heads * self.width
    }

    /// Of all rows.
    pub(super) fn count(&self) -> usize {
        self.rows * self.heads
    }
}

/// A tensor (B, T, heads · width) as \[head\]\[strip\]\[token\]\[numbers of a strip\]: each head cut into strips of a
/// few of its numbers, so that a walk over the tokens reads line after line. A last narrower strip ends in numbers that
/// mean nothing.
#[derive(Debug)]
pub(super) struct Strips {
    numbers: Vec<f32>,
    /// Numbers of a strip.
    pub(super) strip: usize,
    tokens: usize,
    strips: usize,
}

impl Strips {
    pub(super) fn pack(heads: Heads, x: &[f32], tokens: usize, strip: usize) -> Self {
        let strips = heads.width.div_ceil(strip);
        let mut numbers = vec![0.0; heads.count() * strips * tokens * strip];
        numbers
            .par_chunks_mut(tokens * strip)
            .enumerate()
            .for_each(|(number, to)| {
                let (head, first) = (number / strips, number % strips * strip);
                let width = strip.min(heads.width - first);
                for (token, to) in to.chunks_exact_mut(strip).enumerate() {
                    to[..width].copy_from_slice(&x[heads.at(head, token, tokens) + first..][..width]);
                }
            });
        Self {
            numbers,
            strip,
            tokens,
            strips,
        }
    }

    /// Numbers from one strip of a head to the next.
    pub(super) fn next(&self) -> usize {
        self.tokens * self.strip
    }

    /// Strip `strip` of head `head`, from token `token` on.
    pub(super) fn at(&self, head: usize, strip: usize, token: usize) -> *const f32 {
        self.numbers[((head * self.strips + strip) * self.tokens + token) * self.strip..].as_ptr()
    }
}
