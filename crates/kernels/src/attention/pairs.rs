//! Keys, values and the two products of attention as pairs of bfloat16. Softmax is that of f32.

use super::operands::{Heads, KEYS, PANELS, largest_square};
use crate::buffer::{SharedPtr, written};
use crate::isa::Isa;
use crate::pairs::{PAIRS, PairProduct, PairUnit, PairWork, Parts, ROWS, STEP, interleave, narrow};
use crate::pool::tasks;
use crate::simd::{Accumulate, Kernel, PANEL, Prefetch, Product, Rows, Simd};
use rayon::prelude::*;

/// Keys and values of all heads, in one part or two.
#[derive(Debug)]
pub(super) struct PairStrips {
    unit: PairUnit,
    heads: Heads,
    tokens: usize,
    /// Keys of a block.
    pub(super) keys: usize,
    /// \[part\]\[head\]\[token\]\[pairs of the head's width\], the sides filled up to [`ROWS`] and [`PAIRS`].
    key_words: Vec<f32>,
    /// \[part\]\[head\]\[block of keys\]\[number of the head\]\[pairs of keys\], likewise.
    value_words: Vec<f32>,
    is_split: bool,
    /// Upper bounds of the keys' norms, for each head.
    pub(super) norms: Vec<f32>,
}

/// Keys of a block for heads of `width`, so many that they and their values stay in a quarter of a megabyte, as those of f32.
fn keys_of_block(width: usize) -> usize {
    let keys = (131_072 / width.max(1)).clamp(STEP, KEYS);
    keys / STEP * STEP
}

/// Numbers of scratch memory of a task beside what f32 needs.
pub(super) fn room(width: usize) -> usize {
    2 * (PANELS * query_words(width) + 2 * KEYS / 2 * PANEL)
}

/// Words of a panel of queries.
fn query_words(width: usize) -> usize {
    width.next_multiple_of(STEP) / 2 * PANEL
}

impl PairStrips {
    /// Of `k` and `v` (B, tokens, heads · d).
    pub(super) fn pack(
        (isa, unit, is_split): (Isa, PairUnit, bool),
        heads: Heads,
        (k, v): (&[f32], &[f32]),
        tokens: usize,
    ) -> Self {
        let mut strips = Self {
            unit,
            heads,
            tokens,
            keys: keys_of_block(heads.width),
            key_words: Vec::new(),
            value_words: Vec::new(),
            is_split,
            norms: Vec::new(),
        };
        let parts = if is_split { 2 } else { 1 };
        let pack = |length: usize, task: &(dyn Fn(Parts, usize) -> f32 + Sync)| {
            let mut norms = Vec::new();
            let fill = |to: *mut f32| {
                let to = SharedPtr::new(to);
                let blocks = tokens.div_ceil(strips.keys);
                norms = tasks(heads.count() * blocks)
                    .map(|number| {
                        let low = is_split.then(|| to.get().wrapping_add(length));
                        task(Parts { high: to.get(), low }, number)
                    })
                    .collect::<Vec<f32>>()
                    .chunks(blocks)
                    .map(|squares| squares.iter().copied().fold(0.0, f32::max).sqrt())
                    .collect();
            };
            // SAFETY: the tasks write every block of every head.
            let words = unsafe { written(parts * length, fill) };
            (words, norms)
        };
        let (key_words, norms) = pack(heads.count() * strips.keys_of_head(), &|to, number| {
            isa.run(PackKeys(&strips, k, to, number))
        });
        let (value_words, _) = pack(heads.count() * strips.values_of_head(), &|to, number| {
            isa.run(PackValues(&strips, v, to, number))
        });
        strips.key_words = key_words;
        strips.value_words = value_words;
        strips.norms = norms;
        strips
    }

    /// Words of a key.
    fn key(&self) -> usize {
        self.heads.width.next_multiple_of(STEP) / 2
    }

    fn keys_of_head(&self) -> usize {
        self.tokens.next_multiple_of(ROWS) * self.key()
    }

    /// Words of the values of a block.
    fn values_of_block(&self) -> usize {
        self.heads.width.next_multiple_of(ROWS) * self.keys / 2
    }

    fn values_of_head(&self) -> usize {
        self.tokens.div_ceil(self.keys) * self.values_of_block()
    }

    /// The high part of `words` from word `at` on, and the low one where there is one.
    fn parts(&self, words: &[f32], at: usize) -> (*const f32, Option<*const f32>) {
        let low = self.is_split.then(|| words[words.len() / 2 + at..].as_ptr());
        (words[at..].as_ptr(), low)
    }
}

/// A block of keys of a head. Gives the largest square of their norms.
struct PackKeys<'a>(&'a PairStrips, &'a [f32], Parts, usize);

impl Kernel for PackKeys<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Self(strips, k, to, number) = self;
        let PairStrips {
            heads, tokens, keys, ..
        } = *strips;
        let blocks = tokens.div_ceil(keys);
        let (head, start) = (number / blocks, number % blocks * keys);
        let end = tokens.min(start + keys);
        // After the last key zeros, so that whole tiles can be read.
        let padded = if end == tokens {
            end.next_multiple_of(ROWS)
        } else {
            end
        };
        let mut largest = 0.0_f32;
        for token in start..padded {
            let width = heads.width;
            let row = match token < end {
                true => &k[heads.at(head, token, tokens)..][..width],
                false => &[],
            };
            // SAFETY: the head has room for its padded tokens.
            unsafe {
                let to = to.at(head * strips.keys_of_head() + token * strips.key());
                narrow(
                    s,
                    strips.unit.rounding(),
                    row.as_ptr(),
                    (row.len(), 2 * strips.key()),
                    to,
                );
            }
            if !row.is_empty() {
                largest = largest.max(largest_square(s, row, width));
            }
        }
        largest
    }
}

/// A block of values of a head, turned so that the keys of each number lie side by side.
struct PackValues<'a>(&'a PairStrips, &'a [f32], Parts, usize);

impl Kernel for PackValues<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Self(strips, v, to, number) = self;
        let PairStrips {
            heads, tokens, keys, ..
        } = *strips;
        let blocks = tokens.div_ceil(keys);
        let (head, block) = (number / blocks, number % blocks);
        let at = head * strips.values_of_head() + block * strips.values_of_block();
        let mut columns = [0.0_f32; STEP * PANEL];
        let mut words = [[0.0_f32; PAIRS * PANEL]; 2];
        let [high, low] = &mut words;
        for first in (0..heads.width).step_by(PANEL) {
            let width = PANEL.min(heads.width - first);
            for start in (0..keys).step_by(STEP) {
                for (key, column) in columns.chunks_exact_mut(PANEL).enumerate() {
                    let token = block * keys + start + key;
                    column.fill(0.0);
                    if token < tokens {
                        let from = &v[heads.at(head, token, tokens) + first..][..width];
                        column[..width].copy_from_slice(from);
                    }
                }
                let parts = Parts {
                    high: high.as_mut_ptr(),
                    low: to.low.map(|_| low.as_mut_ptr()),
                };
                // SAFETY: words have room for sixteen pairs of sixteen columns, and the block for its padded sides.
                unsafe {
                    interleave(s, strips.unit.rounding(), columns.as_ptr(), (STEP, STEP), parts);
                    let to = to.at(at + first * keys / 2 + start / 2);
                    s.transpose((parts.high, PANEL), (to.high, keys / 2));
                    if let (Some(from), Some(to)) = (parts.low, to.low) {
                        s.transpose((from, PANEL), (to, keys / 2));
                    }
                }
            }
        }
        0.0
    }
}

/// The pairs of one task: operands of a head, and its own memory.
pub(super) struct PairTask<'a> {
    strips: &'a PairStrips,
    work: PairWork,
    head: usize,
    /// \[panel\]\[pairs of the head's width\]\[16\]
    queries: Parts,
    /// \[2\]\[KEYS / 2\]\[16\]
    weights: Parts,
}

impl<'a> PairTask<'a> {
    /// # Safety
    /// There is [`room`] at `scratch`.
    #[inline(always)]
    pub(super) unsafe fn new(strips: &'a PairStrips, head: usize, scratch: *mut f32) -> Self {
        let sizes = [PANELS * query_words(strips.heads.width), KEYS * PANEL];
        // SAFETY: vouched for by the caller.
        let parts = |first: *mut f32, size: usize| unsafe {
            Parts {
                high: first,
                low: strips.is_split.then(|| first.add(size)),
            }
        };
        Self {
            strips,
            work: strips.unit.begin(),
            head,
            queries: parts(scratch, sizes[0]),
            // SAFETY: as above.
            weights: parts(unsafe { scratch.add(2 * sizes[0]) }, sizes[1]),
        }
    }

    /// Rounds panel `panel` of the queries, [d][16].
    ///
    /// # Safety
    /// They can be read, and the panel is one of the task's.
    #[inline(always)]
    pub(super) unsafe fn take_queries<S: Simd>(&self, s: S, panel: usize, queries: *const f32) {
        let width = self.strips.heads.width;
        // SAFETY: vouched for by the caller.
        unsafe {
            let to = self.queries.at(panel * query_words(width));
            interleave(
                s,
                self.strips.unit.rounding(),
                queries,
                (width, width.next_multiple_of(STEP)),
                to,
            );
        }
    }

    /// k · q for `count` keys from `start` on, the first of a block, and `panels` panels of queries from `panel` on.
    ///
    /// # Safety
    /// They exist, and `scores` has room for two panels.
    #[inline(always)]
    pub(super) unsafe fn score<S: Simd>(
        &self,
        s: S,
        (start, count): (usize, usize),
        (panel, panels): (usize, usize),
        scores: *mut f32,
    ) {
        let (strips, words) = (self.strips, query_words(self.strips.heads.width));
        let at = self.head * strips.keys_of_head() + start * strips.key();
        let keys = strips.parts(&strips.key_words, at);
        // SAFETY: these queries and keys exist, and there is room for their scores.
        unsafe {
            let queries = self.queries.at(panel * words);
            let a = Rows {
                first: keys.0,
                stride: strips.key(),
                step: 1,
                count,
            };
            let product = Product {
                a,
                k: strips.key(),
                panels,
                w: queries.high,
                next_w: words,
                c: scores,
                stride: PANEL,
                next_c: KEYS * PANEL,
                accumulate: Accumulate::Overwrite,
                prefetch: Prefetch::rows::<S>(a, strips.key()),
            };
            let low = keys.1.zip(queries.low.map(<*mut f32>::cast_const));
            PairProduct { product, low }.run(s, &self.work);
        }
    }

    /// Adds the values of `count` keys from `start` on, the first of a block, weighted by `panels` panels of weights.
    ///
    /// # Safety
    /// They exist, and `sums` are those of as many panels.
    #[inline(always)]
    pub(super) unsafe fn mix<S: Simd>(
        &self,
        s: S,
        (start, count): (usize, usize),
        (weights, panels): (*const f32, usize),
        sums: *mut f32,
    ) {
        let (strips, width) = (self.strips, self.strips.heads.width);
        let padded = count.next_multiple_of(STEP);
        let at = self.head * strips.values_of_head() + start / strips.keys * strips.values_of_block();
        let values = strips.parts(&strips.value_words, at);
        let next = KEYS / 2 * PANEL;
        // SAFETY: these keys' values and these queries' sums exist.
        unsafe {
            for panel in 0..panels {
                let from = weights.add(panel * KEYS * PANEL);
                interleave(
                    s,
                    strips.unit.rounding(),
                    from,
                    (count, padded),
                    self.weights.at(panel * next),
                );
            }
            let a = Rows {
                first: values.0,
                stride: strips.keys / 2,
                step: 1,
                count: width,
            };
            let product = Product {
                a,
                k: padded / 2,
                panels,
                w: self.weights.high,
                next_w: next,
                c: sums,
                stride: PANEL,
                next_c: width * PANEL,
                accumulate: Accumulate::Continue,
                prefetch: Prefetch::rows::<S>(a, padded / 2),
            };
            let low = values.1.zip(self.weights.low.map(<*mut f32>::cast_const));
            PairProduct { product, low }.run(s, &self.work);
        }
    }
}
