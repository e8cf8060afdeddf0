//! Keys and values, each head's side by side.

use crate::buffer::{SharedPtr, written};
use crate::isa::Isa;
use crate::pool::for_each;
use crate::simd::{Kernel, Simd};

/// Panels of queries of a task.
pub(super) const PANELS: usize = 6;

/// The most keys that are scored at a time: two panels of scores, 32 KiB, stay in the L1 cache.
pub(super) const KEYS: usize = 256;

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
        (row * tokens + token) * self.next() + head * self.width
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
/// few of its numbers, so that going over the tokens reads memory in order. A narrower last strip is padded with zeros.
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
        let size = tokens * strip;
        let fill = |to: *mut f32| {
            let to = SharedPtr::new(to);
            for_each(heads.count() * strips, |number| {
                let (head, first) = (number / strips, number % strips * strip);
                let width = strip.min(heads.width - first);
                // SAFETY: strips do not overlap and lie within the numbers.
                let to = unsafe { std::slice::from_raw_parts_mut(to.get().add(number * size), size) };
                for (token, to) in to.chunks_exact_mut(strip).enumerate() {
                    to[..width].copy_from_slice(&x[heads.at(head, token, tokens) + first..][..width]);
                    to[width..].fill(0.0);
                }
            });
        };
        // SAFETY: every strip is written.
        let numbers = unsafe { written(heads.count() * strips * size, fill) };
        Self {
            numbers,
            strip,
            tokens,
            strips,
        }
    }

    /// An upper bound of the norms of the tokens of head `head`: the largest norms of each strip, which may be those of
    /// different tokens, taken together.
    pub(super) fn largest_norm(&self, isa: Isa, head: usize) -> f32 {
        let strips = (0..self.strips).map(|strip| {
            let first = (head * self.strips + strip) * self.next();
            isa.run(LargestSquare {
                rows: &self.numbers[first..first + self.next()],
                width: self.strip,
            })
        });
        strips.sum::<f32>().sqrt()
    }

    /// Numbers from one strip of a head to the next.
    pub(super) fn next(&self) -> usize {
        self.tokens * self.strip
    }

    /// Strip `strip` of head `head`, from token `token` on.
    pub(super) fn at(&self, head: usize, strip: usize, token: usize) -> *const f32 {
        self.numbers[(head * self.strips + strip) * self.next() + token * self.strip..].as_ptr()
    }
}

/// The largest sum of squares of a row.
struct LargestSquare<'a> {
    rows: &'a [f32],
    width: usize,
}

impl Kernel for LargestSquare<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        largest_square(s, self.rows, self.width)
    }
}

/// The largest sum of squares of rows of `width`.
#[inline(always)]
pub(super) fn largest_square<S: Simd>(s: S, rows: &[f32], width: usize) -> f32 {
    let whole = width / S::LANES * S::LANES;
    let mut largest = 0.0_f32;
    for row in rows.chunks_exact(width) {
        let mut sums = s.splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: within the row.
            let v = unsafe { s.load(row.as_ptr().add(i)) };
            sums = s.fma(v, v, sums);
        }
        let mut sum = s.sum(sums);
        for v in &row[whole..] {
            sum += v * v;
        }
        largest = largest.max(sum);
    }
    largest
}
