//! 3x3 convolutions, where their weights are.

use pentimento_gpu as gpu;

use super::Normalisation;
use super::weights::Weights;
use crate::conv2d::{self, Padding};
use crate::device::GpuDevice;
use crate::{Device, HostTensor, KernelError, Result, Tensor};

/// A 3x3 convolution with its weights on a device.
#[derive(Debug)]
pub struct Conv2d(Form);

#[derive(Debug)]
enum Form {
    Cpu(conv2d::Conv2d),
    Gpu(gpu::Conv2d),
}

/// What is computed in one pass with a convolution, before it and after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvFusion<'a> {
    /// Applied to the input first.
    pub norm: Option<&'a Normalisation>,
    /// The input is enlarged to this size (h, w) first, each pixel from its nearest neighbour.
    pub upsample: Option<(usize, usize)>,
    /// (B, 1, out), added to all pixels of a row.
    pub row_bias: Option<&'a Tensor>,
    /// (B, h', w', out), added to the result.
    pub residual: Option<&'a Tensor>,
}

impl Conv2d {
    /// A convolution with `weight` (out, in, 3, 3) in f32, f16 or bf16 and `bias` (out,), both in main memory.
    ///
    /// # Errors
    /// When the shapes do not fit each other, or the device has no room.
    pub fn new(
        weight: &HostTensor,
        bias: Option<&HostTensor>,
        (stride, padding): (usize, Padding),
        device: &Device,
    ) -> Result<Self> {
        match device {
            Device::Cpu => {
                let conv = conv2d::Conv2d::new(weight, bias, stride, padding)?;
                Ok(Self(Form::Cpu(conv)))
            }
            Device::CpuInBf16 => {
                let conv = conv2d::Conv2d::in_bf16(weight, bias, stride, padding)?;
                Ok(Self(Form::Cpu(conv)))
            }
            Device::Gpu(device) => {
                let conv = on_gpu(weight, bias, (stride, padding), device)?;
                Ok(Self(Form::Gpu(conv)))
            }
        }
    }

    /// Bytes that the weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Form::Cpu(conv) => conv.size_bytes(),
            Form::Gpu(conv) => conv.size_bytes(),
        }
    }

    /// `x`: (B, h, w, in). Result: (B, h', w', out).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is elsewhere.
    pub fn forward(&self, x: &Tensor, fusion: ConvFusion<'_>) -> Result<Tensor> {
        match &self.0 {
            Form::Cpu(conv) => {
                let fusion = conv2d::ConvFusion {
                    norm: fusion.norm.map(Normalisation::cpu).transpose()?,
                    upsample: fusion.upsample,
                    row_bias: fusion.row_bias.map(Tensor::host).transpose()?,
                    residual: fusion.residual.map(Tensor::host).transpose()?,
                };
                Ok(Tensor::Host(conv.forward(x.host()?, fusion)?))
            }
            Form::Gpu(conv) => forward_on_gpu(conv, x.gpu()?, fusion).map(Tensor::Gpu),
        }
    }
}

fn on_gpu(
    weight: &HostTensor,
    bias: Option<&HostTensor>,
    (stride, padding): (usize, Padding),
    device: &GpuDevice,
) -> Result<gpu::Conv2d> {
    let (outputs, inputs, 3, 3) = weight.dims4()? else {
        let detail = format!("a kernel of 3x3 is expected, this is {:?}", weight.dims());
        return Err(KernelError::mismatch(detail));
    };
    let shape = gpu::ConvShape {
        inputs,
        outputs,
        side: 3,
        stride,
        before: padding.before,
        after: padding.after,
    };
    let (weight, bias) = (Weights::of(weight)?, Weights::of_some(bias)?);
    let bias = bias.as_ref().map(Weights::data);
    let conv = gpu::Conv2d::new(device.gpu(), shape, weight.data(), bias, device.dtype())?;
    Ok(conv)
}

/// One after the other; what a library fuses is for it to say.
fn forward_on_gpu(conv: &gpu::Conv2d, x: &gpu::Tensor, fusion: ConvFusion<'_>) -> Result<gpu::Tensor> {
    let mut x = match fusion.norm {
        Some(norm) => norm.apply_on_gpu(x)?,
        None => x.clone(),
    };
    if let Some(size) = fusion.upsample {
        x = gpu::upsample(&x, size)?;
    }
    let mut y = conv.forward(&x)?;
    if let Some(row_bias) = fusion.row_bias {
        let row_bias = row_bias.gpu()?;
        let rows = y.shape().first().copied().unwrap_or(0);
        let outputs = conv.shape().outputs;
        y = gpu::add(&y, &row_bias.reshape(&[rows, 1, 1, outputs])?)?;
    }
    if let Some(residual) = fusion.residual {
        y = gpu::add(&y, &residual.gpu()?.reshape(y.shape())?)?;
    }
    Ok(y)
}
