//! One block of queries of one head over all keys.

use super::Mask;
use super::operands::{Heads, Keys, Values};
use crate::simd::{Kernel, MAX_VECTORS, Mix, PANEL, Product, Rows, Simd, math, mixing_shape};

/// Queries of a block.
pub(super) const QUERIES: usize = 48;

/// The most keys that are scored at a time: a block of scores, 96 KiB, stays in the second cache.
pub(super) const KEYS: usize = 512;

/// Keys of a block for heads of `width`: with their values they take half a megabyte of the second cache at most. A
/// multiple of two panels.
fn keys_of_block(width: usize) -> usize {
    (65_536 / width.max(1) / (2 * PANEL) * 2 * PANEL).clamp(2 * PANEL, KEYS)
}

/// One task.
#[derive(Clone, Copy)]
pub(super) struct QueryBlock<'a> {
    pub(super) heads: Heads,
    pub(super) head: usize,
    pub(super) first: usize,
    pub(super) queries: usize,
    /// Queries of a row.
    pub(super) total: usize,
    pub(super) q: &'a [f32],
    pub(super) keys: &'a Keys,
    pub(super) values: &'a Values,
    pub(super) mask: Mask,
    /// Scores \[QUERIES\]\[KEYS\], then sums of values \[QUERIES\]\[width\].
    pub(super) scratch: *mut f32,
    pub(super) out: *mut f32,
}

/// A query's softmax so far.
#[derive(Clone, Copy)]
struct Running {
    largest: f32,
    sum: f32,
}

impl Kernel for QueryBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.values.width();
        let mut running = [Running {
            largest: f32::NEG_INFINITY,
            sum: 0.0,
        }; QUERIES];
        // SAFETY: the scratch has room for both parts, and every address below is within the operands' sizes, which
        // have been checked against each other.
        unsafe {
            let sums = self.scratch.add(QUERIES * KEYS);
            sums.write_bytes(0, QUERIES * width);
            // Under a causal mask the last query of the block is the one that sees furthest.
            let visible = match self.mask {
                Mask::None => self.keys.count,
                Mask::Causal => self.first + self.queries,
            };
            let keys = keys_of_block(self.heads.width);
            for start in (0..visible).step_by(keys) {
                let count = keys.min(visible - start);
                self.score(s, start, count);
                for (query, running) in running.iter_mut().enumerate().take(self.queries) {
                    let seen = match self.mask {
                        Mask::None => count,
                        Mask::Causal => count.min((self.first + query + 1).saturating_sub(start)),
                    };
                    let scores = std::slice::from_raw_parts_mut(
                        self.scratch.add(query * KEYS),
                        count.next_multiple_of(PANEL),
                    );
                    let sums = std::slice::from_raw_parts_mut(sums.add(query * width), width);
                    softmax(s, scores, seen, running, sums);
                }
                self.mix(s, start, count, sums);
            }
            for (query, running) in running.iter().enumerate().take(self.queries) {
                let from = sums.add(query * width);
                let out = self
                    .out
                    .add(self.heads.at(self.head, self.first + query, self.total));
                let inverse = running.sum.recip();
                let whole = self.heads.width / S::LANES * S::LANES;
                for i in (0..whole).step_by(S::LANES) {
                    s.store(out.add(i), s.mul(s.load(from.add(i)), s.splat(inverse)));
                }
                for i in whole..self.heads.width {
                    *out.add(i) = *from.add(i) * inverse;
                }
            }
        }
    }
}

impl QueryBlock<'_> {
    /// q · kᵀ · log₂ e / √d for `count` keys from `start` on, a multiple of 16.
    #[inline(always)]
    unsafe fn score<S: Simd>(&self, s: S, start: usize, count: usize) {
        let first = self.heads.at(self.head, self.first, self.total);
        let product = Product {
            a: Rows {
                first: self.q[first..].as_ptr(),
                stride: self.heads.heads * self.heads.width,
                count: self.queries,
            },
            k: self.heads.width,
            panels: count.div_ceil(PANEL),
            w: self.keys.panel(self.head, start / PANEL),
            next_w: self.keys.next(),
            c: self.scratch,
            stride: KEYS,
            next_c: PANEL,
            accumulate: false,
        };
        // SAFETY: these queries and keys exist, and the scratch has room for their scores.
        unsafe { product.run(s) }
    }

    /// Adds the values of `count` keys from `start` on, weighted by the scores.
    #[inline(always)]
    unsafe fn mix<S: Simd>(&self, s: S, start: usize, count: usize, sums: *mut f32) {
        let width = self.values.width();
        let vectors = self.heads.width.div_ceil(S::LANES);
        let mut vector = 0;
        while vector < vectors {
            let (wide, most) = mixing_shape(vectors - vector);
            let mut v = [self.values.at(self.head, start, 0); MAX_VECTORS];
            for (j, v) in v.iter_mut().enumerate().take(wide) {
                *v = self.values.at(self.head, start, (vector + j) * S::LANES);
            }
            let mut query = 0;
            while query < self.queries {
                let rows = most.min(self.queries - query);
                // SAFETY: these keys' values and these queries' sums exist.
                unsafe {
                    s.mix(Mix {
                        rows,
                        vectors: wide,
                        k: count,
                        p: self.scratch.add(query * KEYS),
                        p_stride: KEYS,
                        v,
                        o: sums.add(query * width + vector * S::LANES),
                        o_stride: width,
                    });
                }
                query += rows;
            }
            vector += wide;
        }
    }
}

/// Turns a query's scores for some more keys into weights, relative to the largest score so far, and rescales what it
/// has summed before. Scores from `seen` on do not count.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], seen: usize, running: &mut Running, sums: &mut [f32]) {
    scores[seen..].fill(f32::NEG_INFINITY);
    let mut largest = s.splat(running.largest);
    for part in scores.chunks_exact(S::LANES) {
        // SAFETY: a part has as many numbers as a vector.
        largest = s.max(unsafe { s.load(part.as_ptr()) }, largest);
    }
    let largest = s.largest(largest);
    if largest == f32::NEG_INFINITY {
        // Nothing to see yet: under a mask, or after an overflow.
        scores.fill(0.0);
        return;
    }
    let mut sum = s.splat(0.0);
    for part in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: a part has as many numbers as a vector.
        unsafe {
            let weight = math::exp2_of_negative(s, s.sub(s.load(part.as_ptr()), s.splat(largest)));
            sum = s.add(sum, weight);
            s.store(part.as_mut_ptr(), weight);
        }
    }
    let mut total = s.sum(sum);
    // 2^-126 for each one that does not count: too small to be seen in the sum, but not quite nothing.
    scores[seen..].fill(0.0);
    if running.largest != largest {
        let factor = (running.largest - largest).exp2();
        total += running.sum * factor;
        for part in sums.chunks_exact_mut(S::LANES) {
            // SAFETY: a part has as many numbers as a vector.
            unsafe {
                let v = s.mul(s.load(part.as_ptr()), s.splat(factor));
                s.store(part.as_mut_ptr(), v);
            }
        }
    } else {
        total += running.sum;
    }
    *running = Running { largest, sum: total };
}
