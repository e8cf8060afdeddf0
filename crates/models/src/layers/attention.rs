//! Scaled dot-product attention with a bounded buffer of scores.
//!
//! Queries are cut into chunks whose length depends on the number of tokens and heads only, never on the number of
//! rows, so that a row's products have the same shapes alone and in a batch; rows are then taken together as far as
//! the buffer allows.

use candle_core::{Result, Tensor};
use candle_nn::ops::softmax_last_dim;

/// Largest number of scores held at once for one row: 16 MiB in f32, small enough to stay in reach of the caches and
/// below the size from which glibc gives every buffer back to the system.
const SCORES: usize = 4 << 20;

/// Attention of `q` over `k` and `v`, each (B, heads·d, T or S) as `Linear::forward_transposed` makes them, to
/// (B, T, heads·d) with its last two axes exchanged in memory. `mask`: (T, S), added to the scores.
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    attend_within(SCORES, [q, k, v], heads, mask)
}

fn attend_within(
    budget: usize,
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (b, width, t) = q.dims3()?;
    let s = k.dim(2)?;
    let d = width / heads;
    #[expect(clippy::cast_precision_loss, reason = "a head's width is small")]
    let scale = (d as f64).sqrt().recip();
    let q = (q * scale)?.reshape((b, heads, d, t))?;
    let k = k.reshape((b, heads, d, s))?;
    let v = v.reshape((b, heads, d, s))?;
    let chunk = (budget / (heads * s).max(1)).clamp(1, t);
    let rows = (budget / (heads * t * s).max(1)).clamp(1, b);
    let mut blocks = Vec::with_capacity(b.div_ceil(rows));
    for row in (0..b).step_by(rows) {
        let part = |x: &Tensor| x.narrow(0, row, rows.min(b - row));
        let (q, k, v) = (part(&q)?, part(&k)?, part(&v)?);
        let mut chunks = Vec::with_capacity(t.div_ceil(chunk));
        for start in (0..t).step_by(chunk) {
            let len = chunk.min(t - start);
            // (rows, heads, len, S)
            let scores = q.narrow(3, start, len)?.transpose(2, 3)?.matmul(&k)?;
            let scores = match mask {
                Some(mask) => scores.broadcast_add(&mask.narrow(0, start, len)?)?,
                None => scores,
            };
            // (rows, heads, d, len)
            chunks.push(v.matmul(&softmax_last_dim(&scores)?.transpose(2, 3)?)?);
        }
        blocks.push(joined(chunks, 3)?);
    }
    joined(blocks, 0)?.reshape((b, width, t))?.transpose(1, 2)
}

/// The parts side by side along `axis`; a single part is not copied.
fn joined(mut parts: Vec<Tensor>, axis: usize) -> Result<Tensor> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        Some(last) => {
            parts.push(last);
            Tensor::cat(&parts, axis)
        }
        None => candle_core::bail!("attention over no tokens"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use pentimento_testkit::{Tolerance, assert_close};

    use super::*;

    fn wave(shape: (usize, usize, usize), phase: f32) -> Tensor {
        let count = shape.0 * shape.1 * shape.2;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + phase).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn chunked_attention_equals_unchunked() {
        for (b, t, s) in [(1, 1, 1), (2, 37, 37), (3, 64, 7), (2, 5, 77)] {
            let (q, k, v) = (
                wave((b, 12, t), 0.1),
                wave((b, 12, s), 0.2),
                wave((b, 12, s), 0.3),
            );
            let whole = attend_within(usize::MAX, [&q, &k, &v], 3, None).unwrap();
            for budget in [0, 3 * s * 4, 3 * s * 16, 3 * s * t, 3 * s * t * 2] {
                let found = attend_within(budget, [&q, &k, &v], 3, None).unwrap();
                assert_close(
                    "chunked",
                    &found,
                    &whole,
                    Tolerance {
                        max: 1e-6,
                        mean: 1e-7,
                    },
                );
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (q, k, v) = (
            wave((5, 8, 33), 0.1),
            wave((5, 8, 33), 0.2),
            wave((5, 8, 33), 0.3),
        );
        for budget in [2 * 33 * 8, 2 * 33 * 33, 2 * 33 * 33 * 2, usize::MAX] {
            let all = attend_within(budget, [&q, &k, &v], 2, None).unwrap();
            for row in 0..5 {
                let one = |x: &Tensor| x.narrow(0, row, 1).unwrap();
                let alone = attend_within(budget, [&one(&q), &one(&k), &one(&v)], 2, None).unwrap();
                assert_close("row", &one(&all), &alone, Tolerance::EXACT);
            }
        }
    }
}
