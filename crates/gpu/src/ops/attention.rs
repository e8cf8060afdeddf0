//! Scaled dot-product attention: a library's in f16, our own kernel otherwise.

use super::record::Record;
use crate::command::{AttentionCall, Command};
use crate::data::DType;
use crate::error::Result;
use crate::tensor::Tensor;

/// Warps of a block.
const WARPS: usize = 4;

/// Keys of a tile, and lanes of a warp.
const LANES: usize = 32;

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
    let d = width / heads;
    if dtype == DType::F16 && mask == AttnMask::None {
        record.push(Command::Attention(AttentionCall {
            dtype,
            rows,
            queries,
            keys,
            heads,
            width: d,
            scale: scale(d),
            q: q.span(),
            k: k.span(),
            v: v.span(),
            y: y.span(),
        }))?;
        return Ok(y);
    }
    let Some((columns, of_warp)) = variant(d) else {
        return Err(record.mismatch("a head is at most 512 wide"));
    };
    let tile = LANES * (d + 1) + WARPS * of_warp * (d + LANES);
    record
        .launch_named(format!("attend_{columns}_{}", dtype.suffix()))
        .tensor(q)
        .tensor(k)
        .tensor(v)
        .tensor(&y)
        .int(queries)
        .int(keys)
        .int(heads)
        .int(d)
        .float(scale(d))
        .flag(mask == AttnMask::Causal)
        .threads((WARPS * LANES) as u32)
        .shared_bytes(tile * size_of::<f32>())
        .grid([queries.div_ceil(WARPS * of_warp), heads, rows])?;
    Ok(y)
}

/// The columns of a lane and the queries of a warp, as `attention.cu` instantiates its kernel.
fn variant(d: usize) -> Option<(usize, usize)> {
    match d {
        0..=64 => Some((2, 4)),
        65..=160 => Some((5, 4)),
        161..=512 => Some((16, 1)),
        _ => None,
    }
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
