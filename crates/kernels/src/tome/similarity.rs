//! The most similar destination of each source token, without the matrix of all similarities: destinations are compared
//! block by block, and only the best so far is kept.

use rayon::prelude::*;

use super::split::Split;
use crate::buffer::with_scratch;
use crate::isa::Isa;
use crate::simd::{Accumulate, Kernel, PANEL, Prefetch, Product, Rows, Simd};

/// Sources of a task. With 320 numbers each, 120 KiB, they stay in the L2 cache while panel after panel passes.
const SOURCES: usize = 96;

/// Destinations that are compared at a time: a block of products, 96 KiB, stays there too.
const DESTINATIONS: usize = 256;

/// The best destination of a source, as its number among the destinations, and the cosine of the angle between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) score: f32,
    pub(super) destination: usize,
}

/// For each source of a row `x` of tokens its best destination; of equal ones the first.
pub(super) fn most_similar(isa: Isa, x: &[f32], width: usize, split: &Split) -> Vec<Match> {
    let panels = Panels::pack(x, width, &split.destinations);
    let nothing = Match {
        score: f32::NEG_INFINITY,
        destination: 0,
    };
    let mut found = vec![nothing; split.sources.len()];
    found
        .par_chunks_mut(SOURCES)
        .zip(split.sources.par_chunks(SOURCES))
        .for_each(|(found, sources)| {
            with_scratch(SOURCES * (DESTINATIONS + width), |scratch| {
                isa.run(Search {
                    x,
                    sources,
                    panels: &panels,
                    scratch,
                    found,
                });
            });
        });
    found
}

/// Destination tokens of length 1 as panels of 16: \[destination / 16\]\[width\]\[16\].
struct Panels {
    packed: Vec<f32>,
    width: usize,
    count: usize,
}

impl Panels {
    fn pack(x: &[f32], width: usize, destinations: &[usize]) -> Self {
        let count = destinations.len();
        let mut packed = vec![0.0; count.next_multiple_of(PANEL) * width];
        packed
            .par_chunks_mut(width * PANEL)
            .zip(destinations.par_chunks(PANEL))
            .for_each(|(panel, tokens)| {
                for (i, token) in tokens.iter().enumerate() {
                    let token = &x[token * width..][..width];
                    let scale = inverse_length(token);
                    for (to, x) in panel.iter_mut().skip(i).step_by(PANEL).zip(token) {
                        *to = x * scale;
                    }
                }
            });
        Self { packed, width, count }
    }
}

/// 1 over the length of a token, 0 for one without. Summed in the same order for every instruction set.
#[inline(always)]
fn inverse_length(token: &[f32]) -> f32 {
    let mut sums = [0.0_f32; PANEL];
    for part in token.chunks(PANEL) {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x * x;
        }
    }
    let length = sums.iter().sum::<f32>().sqrt();
    if length > 0.0 { length.recip() } else { 0.0 }
}

/// One task: a block of sources against all destinations.
struct Search<'a> {
    /// All tokens of the row.
    x: &'a [f32],
    sources: &'a [usize],
    panels: &'a Panels,
    /// Room for products \[SOURCES\]\[DESTINATIONS\], then for sources \[SOURCES\]\[width\].
    scratch: *mut f32,
    found: &'a mut [Match],
}

impl Kernel for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Panels { count, width, .. } = *self.panels;
        // SAFETY: the scratch has room for both parts.
        let sources = unsafe {
            let first = self.scratch.add(SOURCES * DESTINATIONS);
            std::slice::from_raw_parts_mut(first, self.sources.len() * width)
        };
        for (to, token) in sources.chunks_exact_mut(width).zip(self.sources) {
            let token = &self.x[token * width..][..width];
            let scale = inverse_length(token);
            for (to, x) in to.iter_mut().zip(token) {
                *to = x * scale;
            }
        }
        for start in (0..count).step_by(DESTINATIONS) {
            let count = DESTINATIONS.min(count - start);
            let product = Product {
                a: Rows {
                    first: sources.as_ptr(),
                    stride: width,
                    step: 1,
                    count: self.sources.len(),
                },
                k: width,
                panels: count.div_ceil(PANEL),
                w: self.panels.packed[start * width..].as_ptr(),
                next_w: width * PANEL,
                c: self.scratch,
                stride: DESTINATIONS,
                next_c: PANEL,
                accumulate: Accumulate::Overwrite,
                prefetch: Prefetch::NONE,
            };
            // SAFETY: these sources and panels are `width` long, and there is room for a line of products of each source.
            unsafe { product.run(s) };
            for (source, best) in self.found.iter_mut().enumerate() {
                // SAFETY: the products of this source have just been written, up to whole panels.
                let products = unsafe {
                    std::slice::from_raw_parts_mut(
                        self.scratch.add(source * DESTINATIONS),
                        count.next_multiple_of(PANEL),
                    )
                };
                products[count..].fill(f32::NEG_INFINITY);
                let largest = largest(s, products);
                if largest > best.score {
                    let at = products.iter().position(|product| *product == largest);
                    *best = Match {
                        score: largest,
                        destination: start + at.unwrap_or(0),
                    };
                }
            }
        }
    }
}

/// The largest of some whole panels of numbers.
#[inline(always)]
fn largest<S: Simd>(s: S, numbers: &[f32]) -> f32 {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for part in numbers.chunks_exact(S::LANES) {
        // SAFETY: a part has as many numbers as a vector.
        largest = s.max(unsafe { s.load(part.as_ptr()) }, largest);
    }
    s.largest(largest)
}
