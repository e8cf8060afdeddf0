//! Keys and values, laid out for the matrix kernels.

use rayon::prelude::*;

use crate::simd::PANEL;

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
}

/// Keys as panels of 16, scaled by log₂ e / √d, so that weights are powers of two: \[head\]\[keys / 16\]\[d\]\[16\].
#[derive(Debug)]
pub(super) struct Keys {
    packed: Vec<f32>,
    width: usize,
    pub(super) count: usize,
}

impl Keys {
    pub(super) fn pack(heads: Heads, k: &[f32], count: usize) -> Self {
        let Heads { width, .. } = heads;
        #[expect(clippy::cast_precision_loss, reason = "a head's width is small")]
        let scale = std::f32::consts::LOG2_E / (width as f32).sqrt();
        let panels = count.div_ceil(PANEL);
        let mut packed = vec![0.0; heads.rows * heads.heads * panels * width * PANEL];
        packed
            .par_chunks_mut(width * PANEL)
            .enumerate()
            .for_each(|(panel, to)| {
                let (head, first) = (panel / panels, panel % panels * PANEL);
                for key in 0..PANEL.min(count - first) {
                    let from = &k[heads.at(head, first + key, count)..][..width];
                    for (i, v) in from.iter().enumerate() {
                        to[i * PANEL + key] = v * scale;
                    }
                }
            });
        Self { packed, width, count }
    }

    /// Panel `panel` of head `head`.
    pub(super) fn panel(&self, head: usize, panel: usize) -> *const f32 {
        let panels = self.count.div_ceil(PANEL);
        self.packed[(head * panels + panel) * self.width * PANEL..].as_ptr()
    }

    /// From one panel to the next.
    pub(super) fn next(&self) -> usize {
        self.width * PANEL
    }
}

/// Values as panels of 16 of their numbers, the last one filled up with zeros: \[head\]\[width / 16\]\[key\]\[16\].
/// A walk over the keys then reads line after line, however wide a head is.
#[derive(Debug)]
pub(super) struct Values {
    packed: Vec<f32>,
    panels: usize,
    count: usize,
}

impl Values {
    pub(super) fn pack(heads: Heads, v: &[f32], count: usize) -> Self {
        let panels = heads.width.div_ceil(PANEL);
        let mut packed = vec![0.0; heads.rows * heads.heads * panels * count * PANEL];
        packed
            .par_chunks_mut(count * PANEL)
            .enumerate()
            .for_each(|(panel, to)| {
                let (head, first) = (panel / panels, panel % panels * PANEL);
                let width = PANEL.min(heads.width - first);
                for (key, to) in to.chunks_mut(PANEL).enumerate() {
                    to[..width].copy_from_slice(&v[heads.at(head, key, count) + first..][..width]);
                }
            });
        Self {
            packed,
            panels,
            count,
        }
    }

    /// Numbers from `column` on of value `key` of head `head`; the next key's lie 16 further.
    pub(super) fn at(&self, head: usize, key: usize, column: usize) -> *const f32 {
        let panel = head * self.panels + column / PANEL;
        self.packed[(panel * self.count + key) * PANEL + column % PANEL..].as_ptr()
    }

    /// Numbers of a value with its filling.
    pub(super) fn width(&self) -> usize {
        self.panels * PANEL
    }
}
