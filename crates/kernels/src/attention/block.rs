//! One block of queries of one head over all keys.
//!
//! Scores are computed with a key a row and a query a column, so that sixteen queries share each vector: their softmax
//! needs no sums across lanes, and no head is too narrow to fill a vector.

use super::AttnMask;
use super::operands::{Heads, KEYS, PANELS, Strips};
use super::pairs::{PairStrips, PairTask};
use crate::simd::{Accumulate, Kernel, PANEL, Prefetch, Product, Rows, Simd, math, transpose_each};

/// Queries of a block.
pub(super) const QUERIES: usize = PANELS * PANEL;

/// The width of the keys' strips, and how much of a head is multiplied at a time: so much that two panels of queries stay
/// in the L1 cache beside the keys.
pub(super) const DEPTH: usize = 256;

/// Keys of a block for heads of `width`: with their values they take a quarter of a megabyte of the L2 cache at most.
fn keys_of_block(width: usize) -> usize {
    (65_536 / width.max(1)).clamp(PANEL, KEYS)
}

/// Numbers of scratch memory of a task.
pub(super) fn room(width: usize) -> usize {
    2 * KEYS * PANEL + 2 * PANELS * width * PANEL
}

/// The width of the values' strips for heads of `width`: at most the rows of a tile, and about the same for every strip.
pub(super) fn strip(width: usize, rows: usize) -> usize {
    width.div_ceil(width.div_ceil(rows).max(1))
}

/// Keys and values.
#[derive(Clone, Copy)]
pub(super) enum Operands<'a> {
    /// Of f32.
    Numbers { keys: &'a Strips, values: &'a Strips },
    /// Of bfloat16.
    Pairs(&'a PairStrips),
}

impl Operands<'_> {
    /// Keys of a block.
    fn keys_of_block(self, width: usize) -> usize {
        match self {
            Self::Numbers { .. } => keys_of_block(width),
            Self::Pairs(strips) => strips.keys,
        }
    }
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
    /// Keys of a row.
    pub(super) count: usize,
    pub(super) operands: Operands<'a>,
    /// An upper bound of the keys' norms.
    pub(super) largest_key: f32,
    pub(super) mask: AttnMask,
    /// [`room`] numbers: scores \[2\]\[KEYS\]\[16\], queries and sums of values, each \[PANELS\]\[d\]\[16\]. Then those of
    /// pairs.
    pub(super) scratch: *mut f32,
    pub(super) out: *mut f32,
}

/// Up to this score, an exponent of two, softmax need not subtract the largest one first: neither weights nor their sums
/// leave the range of f32, and those that matter keep all their bits.
const BOUND: f32 = 64.0;

/// The softmax of sixteen queries so far.
#[derive(Clone, Copy)]
struct Running {
    /// Whether no score can exceed [`BOUND`]: none is larger than the norms of its query and its key together (Cauchy and
    /// Schwarz). Then the largest is not needed.
    bounded: bool,
    largest: [f32; PANEL],
    sum: [f32; PANEL],
}

impl Kernel for QueryBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.heads.width;
        let panels = self.queries.div_ceil(PANEL);
        let mut running = [Running {
            bounded: false,
            largest: [f32::NEG_INFINITY; PANEL],
            sum: [0.0; PANEL],
        }; PANELS];
        // SAFETY: the scratch has room for the three parts, and every address below is within the operands' sizes,
        // which have been checked against each other.
        unsafe {
            let scores = self.scratch;
            let queries = scores.add(2 * KEYS * PANEL);
            let sums = queries.add(PANELS * width * PANEL);
            let pairs = match self.operands {
                Operands::Numbers { .. } => None,
                Operands::Pairs(strips) => {
                    let scratch = sums.add(PANELS * width * PANEL);
                    Some(PairTask::new(strips, self.head, scratch))
                }
            };
            self.gather_queries(s, queries);
            for (panel, running) in running.iter_mut().enumerate().take(panels) {
                let queries = queries.add(panel * width * PANEL);
                let norm = largest_norm(s, queries, width);
                running.bounded = norm * self.largest_key <= BOUND;
                if let Some(pairs) = &pairs {
                    pairs.take_queries(s, panel, queries);
                }
            }
            sums.write_bytes(0, panels * width * PANEL);
            // Under a causal mask the last query of the block is the one that sees furthest.
            let visible = match self.mask {
                AttnMask::None => self.count,
                AttnMask::Causal => self.first + self.queries,
            };
            let keys = self.operands.keys_of_block(width);
            for start in (0..visible).step_by(keys) {
                let count = keys.min(visible - start);
                for panel in (0..panels).step_by(2) {
                    let wide = 2.min(panels - panel);
                    let at = panel * width * PANEL;
                    match (&pairs, self.operands) {
                        (Some(pairs), _) => pairs.score(s, (start, count), (panel, wide), scores),
                        (None, Operands::Numbers { keys, .. }) => {
                            self.score(s, keys, (start, count), (queries.add(at), wide), scores);
                        }
                        (None, Operands::Pairs(_)) => {}
                    }
                    for i in 0..wide {
                        let scores = scores.add(i * KEYS * PANEL);
                        self.hide(panel + i, (start, count), scores);
                        let sums = sums.add(at + i * width * PANEL);
                        softmax(s, (scores, count), &mut running[panel + i], (sums, width));
                    }
                    match (&pairs, self.operands) {
                        (Some(pairs), _) => pairs.mix(s, (start, count), (scores, wide), sums.add(at)),
                        (None, Operands::Numbers { values, .. }) => {
                            self.mix(s, values, (start, count), (scores, wide), sums.add(at));
                        }
                        (None, Operands::Pairs(_)) => {}
                    }
                }
            }
            for (panel, running) in running.iter().enumerate().take(panels) {
                self.write_result(s, panel, running, sums.add(panel * width * PANEL));
            }
        }
    }
}

impl QueryBlock<'_> {
    /// Queries as panels of 16, scaled by log₂ e / √d, so that weights are powers of two. Queries that do not exist are
    /// zeros.
    #[inline(always)]
    unsafe fn gather_queries<S: Simd>(&self, s: S, to: *mut f32) {
        let width = self.heads.width;
        #[expect(clippy::cast_precision_loss, reason = "a head's width is small")]
        let scale = s.splat(std::f32::consts::LOG2_E / (width as f32).sqrt());
        for (panel, first) in (0..self.queries).step_by(PANEL).enumerate() {
            let count = PANEL.min(self.queries - first);
            let from = self.q[self.heads.at(self.head, self.first + first, self.total)..].as_ptr();
            // SAFETY: the caller made room for all panels, and these queries exist.
            unsafe {
                let to = to.add(panel * width * PANEL);
                if count < PANEL {
                    to.write_bytes(0, width * PANEL);
                }
                transpose(s, (from, self.heads.next(), count), (to, PANEL, width));
                for i in (0..width * PANEL).step_by(S::LANES) {
                    s.store(to.add(i), s.mul(s.load(to.add(i)), scale));
                }
            }
        }
    }

    /// k · q for `count` keys from `start` on and one panel of queries or two.
    #[expect(
        clippy::too_many_arguments,
        reason = "the token of the instruction set is one of them"
    )]
    #[inline(always)]
    unsafe fn score<S: Simd>(
        &self,
        s: S,
        strips: &Strips,
        (start, count): (usize, usize),
        (queries, panels): (*const f32, usize),
        scores: *mut f32,
    ) {
        let width = self.heads.width;
        let strip = strips.strip;
        for first in (0..width).step_by(strip) {
            let keys = strips.at(self.head, first / strip, start);
            let (a, k) = (
                Rows {
                    first: keys,
                    stride: strip,
                    step: 1,
                    count,
                },
                strip.min(width - first),
            );
            // SAFETY: these queries and keys exist, and there is room for their scores.
            unsafe {
                let product = Product {
                    a,
                    k,
                    panels,
                    w: queries.add(first * PANEL),
                    next_w: width * PANEL,
                    c: scores,
                    stride: PANEL,
                    next_c: KEYS * PANEL,
                    accumulate: Accumulate::part(first),
                    prefetch: Prefetch::rows::<S>(a, k),
                };
                product.run(s);
            }
        }
    }

    /// Excludes the keys that a query must not see from its softmax.
    #[inline(always)]
    unsafe fn hide(&self, panel: usize, (start, count): (usize, usize), scores: *mut f32) {
        if self.mask == AttnMask::None {
            return;
        }
        for lane in 0..PANEL {
            let seen = self.first + panel * PANEL + lane + 1;
            for key in seen.saturating_sub(start)..count {
                // SAFETY: the panel has `count` scores for each lane.
                unsafe { *scores.add(key * PANEL + lane) = f32::NEG_INFINITY }
            }
        }
    }

    /// Adds the values of `count` keys from `start` on, weighted by the scores.
    #[expect(
        clippy::too_many_arguments,
        reason = "the token of the instruction set is one of them"
    )]
    #[inline(always)]
    unsafe fn mix<S: Simd>(
        &self,
        s: S,
        strips: &Strips,
        (start, count): (usize, usize),
        (scores, panels): (*const f32, usize),
        sums: *mut f32,
    ) {
        let (width, strip) = (self.heads.width, strips.strip);
        for first in (0..width).step_by(strip) {
            let values = strips.at(self.head, first / strip, start);
            let following = values.wrapping_add(strips.next());
            // SAFETY: these keys' values and these queries' sums exist.
            unsafe {
                let product = Product {
                    a: Rows {
                        first: values,
                        stride: 1,
                        step: strip,
                        count: strip.min(width - first),
                    },
                    k: count,
                    panels,
                    w: scores,
                    next_w: KEYS * PANEL,
                    c: sums.add(first * PANEL),
                    stride: PANEL,
                    next_c: width * PANEL,
                    accumulate: Accumulate::Continue,
                    prefetch: Prefetch::left_operand(following, strip, 0),
                };
                product.run(s);
            }
        }
    }

    /// Writes a panel's results: its sums of values, divided by its sums of weights.
    #[inline(always)]
    unsafe fn write_result<S: Simd>(&self, s: S, panel: usize, running: &Running, sums: *mut f32) {
        let width = self.heads.width;
        let first = panel * PANEL;
        // SAFETY: the queries are in the result, and their sums are in the panel.
        unsafe {
            for lane in (0..PANEL).step_by(S::LANES) {
                let inverse = s.div(s.splat(1.0), s.load(running.sum.as_ptr().add(lane)));
                for i in 0..width {
                    let sum = sums.add(i * PANEL + lane);
                    s.store(sum, s.mul(s.load(sum), inverse));
                }
            }
            let out = self
                .out
                .add(self.heads.at(self.head, self.first + first, self.total));
            let count = PANEL.min(self.queries - first);
            transpose(s, (sums, PANEL, width), (out, self.heads.next(), count));
        }
    }
}

/// Transposes `rows` rows of `columns` numbers, `next_from` apart, into `columns` rows, `next_to` apart. Sixteen by
/// sixteen; where the sides are no multiples of that, the last squares overlap those before.
///
/// # Safety
/// The rows can be read at `from` and written at `to`.
#[inline(always)]
unsafe fn transpose<S: Simd>(
    s: S,
    (from, next_from, rows): (*const f32, usize, usize),
    (to, next_to, columns): (*mut f32, usize, usize),
) {
    // SAFETY: vouched for by the caller.
    unsafe {
        if rows < PANEL || columns < PANEL {
            return transpose_each((from, next_from, rows), (to, next_to, columns));
        }
        for i in (0..rows).step_by(PANEL) {
            let i = i.min(rows - PANEL);
            for j in (0..columns).step_by(PANEL) {
                let j = j.min(columns - PANEL);
                let from = from.add(i * next_from + j);
                s.transpose((from, next_from), (to.add(j * next_to + i), next_to));
            }
        }
    }
}

/// Independent sums, so that one addition does not wait for the other.
const CHAINS: usize = 4;

/// Turns the scores of sixteen queries for some more keys into weights, relative to each query's largest score so far,
/// and rescales what has been summed before.
///
/// # Safety
/// `scores` holds `count` times 16 numbers and `sums` `width` times 16.
#[inline(always)]
unsafe fn softmax<S: Simd>(
    s: S,
    (scores, count): (*mut f32, usize),
    running: &mut Running,
    (sums, width): (*mut f32, usize),
) {
    let whole = count / CHAINS * CHAINS;
    for lane in (0..PANEL).step_by(S::LANES) {
        // SAFETY: lanes of the panel, vouched for by the caller.
        unsafe {
            let scores = scores.add(lane);
            let total = running.sum.as_mut_ptr().add(lane);
            if running.bounded {
                let sum = weigh_all::<S, false>(s, (scores, count), s.splat(0.0));
                s.store(total, s.add(s.load(total), sum));
                continue;
            }
            let before = s.load(running.largest.as_ptr().add(lane));
            let mut largest = [before; CHAINS];
            for key in (0..whole).step_by(CHAINS) {
                for (i, largest) in largest.iter_mut().enumerate() {
                    *largest = s.max(s.load(scores.add((key + i) * PANEL)), *largest);
                }
            }
            for key in whole..count {
                largest[0] = s.max(s.load(scores.add(key * PANEL)), largest[0]);
            }
            let largest = s.max(s.max(largest[0], largest[1]), s.max(largest[2], largest[3]));
            let sum = weigh_all::<S, true>(s, (scores, count), largest);
            let factor = math::exp2(s, s.sub(before, largest));
            s.store(total, s.fma(s.load(total), factor, sum));
            s.store(running.largest.as_mut_ptr().add(lane), largest);
            for i in 0..width {
                let value = sums.add(i * PANEL + lane);
                s.store(value, s.mul(s.load(value), factor));
            }
        }
    }
}

/// Replaces the scores of `count` keys, a vector of queries each, by weights and returns their sums. If `RELATIVE`,
/// `largest` is subtracted from the scores first.
///
/// # Safety
/// Vectors can be read and written there, 16 numbers apart.
#[inline(always)]
unsafe fn weigh_all<S: Simd, const RELATIVE: bool>(
    s: S,
    (scores, count): (*mut f32, usize),
    largest: S::V,
) -> S::V {
    let whole = count / CHAINS * CHAINS;
    let mut sum = [s.splat(0.0); CHAINS];
    // SAFETY: vouched for by the caller.
    unsafe {
        for key in (0..whole).step_by(CHAINS) {
            for (i, sum) in sum.iter_mut().enumerate() {
                let weight = weigh::<S, RELATIVE>(s, scores.add((key + i) * PANEL), largest);
                *sum = s.add(*sum, weight);
            }
        }
        for key in whole..count {
            let weight = weigh::<S, RELATIVE>(s, scores.add(key * PANEL), largest);
            sum[0] = s.add(sum[0], weight);
        }
    }
    s.add(s.add(sum[0], sum[1]), s.add(sum[2], sum[3]))
}

/// Replaces a vector of scores by weights and returns them.
///
/// # Safety
/// A vector can be read and written at `score`.
#[inline(always)]
unsafe fn weigh<S: Simd, const RELATIVE: bool>(s: S, score: *mut f32, largest: S::V) -> S::V {
    // SAFETY: vouched for by the caller.
    unsafe {
        let mut x = s.load(score);
        if RELATIVE {
            x = s.sub(x, largest);
        }
        let weight = math::exp2(s, x);
        s.store(score, weight);
        weight
    }
}

/// The largest norm of sixteen queries, a column of `width` numbers each.
///
/// # Safety
/// `width` times 16 numbers can be read.
#[inline(always)]
unsafe fn largest_norm<S: Simd>(s: S, queries: *const f32, width: usize) -> f32 {
    let mut largest = 0.0_f32;
    for lane in (0..PANEL).step_by(S::LANES) {
        let mut squares = s.splat(0.0);
        for i in 0..width {
            // SAFETY: vouched for by the caller.
            let v = unsafe { s.load(queries.add(i * PANEL + lane)) };
            squares = s.fma(v, v, squares);
        }
        largest = largest.max(s.largest(squares));
    }
    largest.sqrt()
}
