//! Attention, where the queries are.

use crate::attention::{self, AttnMask};
use crate::{Result, Tensor};

/// softmax(q · kᵀ / √d) · v for each of `heads` heads: `q` (B, T, heads·d), `k` and `v` (B, S, heads·d). Result:
/// (B, T, heads·d).
///
/// # Errors
/// When the shapes do not fit each other, or the tensors are not in one place.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: AttnMask) -> Result<Tensor> {
    match q {
        Tensor::Host(q) => {
            let y = attention::attend(q, k.host()?, v.host()?, heads, mask)?;
            Ok(Tensor::Host(y))
        }
    }
}
