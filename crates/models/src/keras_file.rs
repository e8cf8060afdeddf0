//! Weights with Keras' names and order of axes, read from a file of safetensors that is in memory.
//!
//! A tensor of bytes has its smallest value and its step beside it, under `<name>/range`.

use std::collections::HashMap;

use candle_core::{DType, Device as HostDevice, safetensors};

use crate::layers::{Conv2d, Device, HostTensor, KernelError, LayerSource, Linear, Result, Stride, to_f32};

/// The tensors of a file by their names.
pub(crate) struct KerasFile(HashMap<String, HostTensor>);

impl KerasFile {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        Ok(Self(safetensors::load_buffer(bytes, &HostDevice::Cpu)?))
    }

    /// The tensor in f32. Bytes are taken apart as TensorFlow.js does it: in f64, rounded once.
    pub(crate) fn get(&self, name: &str) -> Result<HostTensor> {
        let missing = || candle_core::Error::CannotFindTensor {
            path: name.to_owned(),
        };
        let tensor = self.0.get(name).ok_or_else(missing)?;
        let Some(range) = self.0.get(&format!("{name}/range")) else {
            return to_f32(tensor);
        };
        let &[smallest, step] = range.to_vec1::<f64>()?.as_slice() else {
            let detail = format!("{name}: a range is a smallest value and a step");
            return Err(KernelError::mismatch(detail));
        };
        to_f32(&tensor.to_dtype(DType::F64)?.affine(step, smallest)?)
    }

    /// The kernel (outputs, inputs, h, w) of a convolution.
    pub(crate) fn kernel(&self, name: &str) -> Result<HostTensor> {
        let kernel = self.get(&format!("{name}/kernel"))?;
        Ok(kernel.permute((3, 2, 0, 1))?.contiguous()?)
    }

    pub(crate) fn bias(&self, name: &str) -> Result<HostTensor> {
        self.get(&format!("{name}/bias"))
    }

    /// A 3x3 convolution that keeps the size.
    pub(crate) fn conv(&self, name: &str) -> Result<Conv2d> {
        conv2d(name, &self.kernel(name)?, self.bias(name)?, Stride::One)
    }

    /// A 1x1 convolution.
    pub(crate) fn pointwise(&self, name: &str) -> Result<Linear> {
        linear(name, &self.kernel(name)?.flatten_from(1)?, self.bias(name)?)
    }

    /// A matrix.
    pub(crate) fn dense(&self, name: &str) -> Result<Linear> {
        linear(name, &self.get(&format!("{name}/kernel"))?.t()?, self.bias(name)?)
    }
}

/// A convolution by a kernel (outputs, inputs, 3, 3).
pub(crate) fn conv2d(name: &str, kernel: &HostTensor, bias: HostTensor, stride: Stride) -> Result<Conv2d> {
    let (outputs, inputs, _, _) = kernel.dims4()?;
    Conv2d::new(inputs, outputs, stride, &parts(name, kernel.contiguous()?, bias))
}

/// A layer by a matrix (outputs, inputs).
pub(crate) fn linear(name: &str, matrix: &HostTensor, bias: HostTensor) -> Result<Linear> {
    let (outputs, inputs) = matrix.dims2()?;
    Linear::new(inputs, outputs, &parts(name, matrix.contiguous()?, bias))
}

/// The two tensors as a layer finds them.
fn parts(name: &str, weight: HostTensor, bias: HostTensor) -> LayerSource<'static> {
    let tensors = [(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)];
    LayerSource::from_tensors(tensors.into(), &Device::Cpu).pp(name)
}
