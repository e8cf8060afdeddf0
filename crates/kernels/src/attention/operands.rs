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

/// Keys as panels of 16, scaled by 1 / √d: \[head\]\[keys / 16\]\[d\]\[16\].
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
        let scale = (width as f32).sqrt().recip();
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

/// Values head by head, each filled up with zeros to whole vectors of any instruction set: \[head\]\[key\]\[width\].
#[derive(Debug)]
pub(super) struct Values {
    packed: Vec<f32>,
    width: usize,
    count: usize,
}

impl Values {
    pub(super) fn pack(heads: Heads, v: &[f32], count: usize) -> Self {
        let width = heads.width.next_multiple_of(PANEL);
        let mut packed = vec![0.0; heads.rows * heads.heads * count * width];
        packed
            .par_chunks_mut(count * width)
            .enumerate()
            .for_each(|(head, to)| {
                for (key, to) in to.chunks_mut(width).enumerate() {
                    to[..heads.width].copy_from_slice(&v[heads.at(head, key, count)..][..heads.width]);
                }
            });
        Self { packed, width, count }
    }

    /// Value `key` of head `head`.
    pub(super) fn at(&self, head: usize, key: usize) -> *const f32 {
        self.packed[(head * self.count + key) * self.width..].as_ptr()
    }

    /// Numbers of a value with its filling.
    pub(super) fn width(&self) -> usize {
        self.width
    }
}
