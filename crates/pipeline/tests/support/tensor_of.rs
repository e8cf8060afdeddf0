//! Images as tensors, for the tests that compare them with a golden file's.

use candle_core::{DType, Device, Tensor};
use pentimento_types::{RgbImage, Size};

/// `(H, W, 3)` u8.
pub(crate) fn tensor_of(image: &RgbImage) -> Tensor {
    let Size { width, height } = image.size();
    Tensor::from_slice(image.pixels(), (height as usize, width as usize, 3), &Device::Cpu)
        .unwrap()
        .to_dtype(DType::U8)
        .unwrap()
}
