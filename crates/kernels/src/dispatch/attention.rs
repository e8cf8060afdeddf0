//! Attention, where the queries are.

use pentimento_gpu as gpu;

use crate::attention::{self, AttnMask};
use crate::device::Precision;
use crate::{Result, Tensor};

/// softmax(q · kᵀ / √d) · v for each of `heads` heads: `q` (B, T, heads·d), `k` and `v` (B, S, heads·d). Result:
/// (B, T, heads·d). In `precision` on the processor, on a GPU in that of the tensors.
///
/// # Errors
/// When the shapes do not fit each other, or the tensors are not in one place.
pub fn attend(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    heads: usize,
    mask: AttnMask,
    precision: Precision,
) -> Result<Tensor> {
    match q {
        Tensor::Host(q) => {
            let attend = match precision {
                Precision::Bf16 => attention::attend_in_bf16,
                Precision::F32 | Precision::F16 => attention::attend,
            };
            let y = attend(q, k.host()?, v.host()?, heads, mask)?;
            Ok(Tensor::Host(y))
        }
        Tensor::Gpu(q) => {
            let mask = match mask {
                AttnMask::None => gpu::AttnMask::None,
                AttnMask::Causal => gpu::AttnMask::Causal,
            };
            let y = gpu::attend(q, k.gpu()?, v.gpu()?, heads, mask)?;
            Ok(Tensor::Gpu(y))
        }
    }
}
