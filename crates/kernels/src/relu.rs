//! max(x, 0) of every number, where it stands.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

/// Numbers of a task.
const PIECE: usize = 1 << 14;

/// Makes every negative number of `x`, contiguous f32, a zero, and leaves what is no number as it is. Takes the tensor because
/// its numbers are overwritten: nobody else may hold them.
///
/// # Errors
/// When `x` is not contiguous f32 on the CPU.
pub(crate) fn relu(x: Tensor) -> Result<Tensor> {
    x.inplace_op1(&Relu)?;
    Ok(x)
}

struct Relu;

impl InplaceOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!(
                "a kernel got a tensor of shape {:?} that is not contiguous",
                layout.dims()
            )
        };
        let CpuStorage::F32(values) = x else {
            candle_core::bail!("the kernels take f32 on the CPU")
        };
        values[start..end].par_chunks_mut(PIECE).for_each(|piece| {
            for value in piece {
                if *value < 0.0 {
                    *value = 0.0;
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn negative_numbers_become_zero_and_no_others() {
        let x = [-1.0, 0.0, 2.5, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
        let x = Tensor::new(&x, &Device::Cpu).unwrap();
        let y = relu(x).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y[..5], [0.0, 0.0, 2.5, 0.0, f32::INFINITY]);
        assert!(y[5].is_nan());
        let long = Tensor::full(-1.0_f32, PIECE * 2 + 3, &Device::Cpu).unwrap();
        let sum = relu(long).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(sum.to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn other_tensors_are_refused() {
        let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(relu(x.t().unwrap()).is_err());
        assert!(relu(x.to_dtype(DType::F64).unwrap()).is_err());
    }
}
