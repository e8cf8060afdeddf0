//! Scaled dot-product attention by our own kernels: on the matrix units in f16, in f32 arithmetic otherwise.

use super::record::Record;
use crate::command::{AttentionCall, Command};
use crate::error::Result;
use crate::kernels::attention::{plain, tiles};
use crate::tensor::Tensor;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttnMask {
    /// All of them.
    None,
    /// Its own and those before it.
    Causal,
}

/// softmax(q · kᵀ / √d) · v for each of `heads` heads: `q` (B, T, heads · d), `k` and `v` (B, S, heads · d), d at most 512.
/// Result: (B, T, heads · d).
///
/// A second set of keys and values is a second call, whose result [`add_scaled`](super::add_scaled) adds.
///
/// # Errors
/// When the shapes or types do not fit each other.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: AttnMask) -> Result<Tensor> {
    let record = Record::new("attention", [q, k, v])?;
    let dtype = record.float([q, k, v])?;
    let (&[rows, queries, width], &[key_rows, keys, key_width]) = (q.shape(), k.shape()) else {
        return Err(record.mismatch("(B, T, D) and (B, S, D) are needed"));
    };
    let fits = (key_rows, key_width) == (rows, width)
        && v.shape() == k.shape()
        && heads > 0
        && width > 0
        && width.is_multiple_of(heads)
        && keys > 0
        && (mask == AttnMask::None || keys == queries);
    record.ensure(fits, format_args!("shapes do not fit {heads} heads and {mask:?}"))?;
    let y = record.result(q.shape(), dtype)?;
    if y.elements() == 0 {
        return Ok(y);
    }
    let call = AttentionCall {
        dtype,
        rows,
        queries,
        keys,
        heads,
        width: width / heads,
        scale: scale(width / heads),
        q: q.span(),
        k: k.span(),
        v: v.span(),
        y: y.span(),
    };
    let on_matrix_units = tiles(&call).filter(|_| mask == AttnMask::None);
    match on_matrix_units.or_else(|| plain(&call, mask == AttnMask::Causal)) {
        Some(launch) => record.push(Command::Launch(launch))?,
        None => return Err(record.mismatch("a head is at most 512 wide")),
    }
    Ok(y)
}

/// 1 / √d
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "widths of heads"
)]
fn scale(d: usize) -> f32 {
    (1.0 / (d as f64).sqrt()) as f32
}
