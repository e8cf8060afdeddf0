//! Weights on their way to a device: in its type, and with channels filled up.

use crate::data::{DType, HostData};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Channels are filled up to multiples of this: two layers of a UNet have no engine without (4 or 9 inputs, 4
/// outputs), and all are faster.
const CHANNELS: usize = 8;

/// Channels of a layer, filled up.
pub(super) fn filled(channels: usize, dtype: DType) -> usize {
    match dtype {
        DType::F16 | DType::F32 => channels.next_multiple_of(CHANNELS),
        DType::I32 | DType::Address => channels,
    }
}

/// Number i of `data` at `place(i)` of `length`, and zeros elsewhere. A half is exact as a float.
pub(super) fn reordered(
    data: HostData<'_>,
    length: usize,
    place: impl Fn(usize) -> usize,
) -> Result<Vec<f32>> {
    let mut numbers = vec![0.0; length];
    match data {
        HostData::F32(data) => data.iter().enumerate().for_each(|(i, x)| numbers[place(i)] = *x),
        HostData::F16(data) => data
            .iter()
            .enumerate()
            .for_each(|(i, x)| numbers[place(i)] = x.to_f32()),
        HostData::I32(_) => return Err(Error::operands("weights", "weights are floats")),
    }
    Ok(numbers)
}

/// Weights in `dtype`: as they are, or rounded to nearest.
pub(super) fn upload(gpu: &Gpu, shape: &[usize], data: HostData<'_>, dtype: DType) -> Result<Tensor> {
    match (data, dtype) {
        (HostData::F32(numbers), DType::F32 | DType::F16) => Tensor::upload_as(gpu, shape, numbers, dtype),
        (HostData::F16(_), DType::F16) => Tensor::upload(gpu, shape, data),
        (HostData::F16(numbers), DType::F32) => {
            let wide: Vec<f32> = numbers.iter().map(|number| number.to_f32()).collect();
            Tensor::upload(gpu, shape, HostData::F32(&wide))
        }
        (HostData::I32(_), _) | (_, DType::I32 | DType::Address) => {
            Err(Error::operands("weights", "weights are floats"))
        }
    }
}
