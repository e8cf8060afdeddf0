//! 3x3 convolutions, where their weights are.

use super::Normalisation;
use crate::conv2d::{self, Padding};
use crate::{Device, HostTensor, Result, Tensor};

/// A 3x3 convolution with its weights on a device.
#[derive(Debug)]
pub struct Conv2d(Form);

#[derive(Debug)]
enum Form {
    Cpu(conv2d::Conv2d),
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
            Device::Cpu => Ok(Self(Form::Cpu(conv2d::Conv2d::new(
                weight, bias, stride, padding,
            )?))),
        }
    }

    /// Bytes that the weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Form::Cpu(conv) => conv.size_bytes(),
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
        }
    }
}
