//! A 3x3 convolution of each channel by itself, between two ReLU6.
//!
//! Nine multiply-adds of whole pixels, channels innermost: there is nothing to gain from a matrix.

use crate::keras_file::KerasFile;
use crate::layers::{KernelError, Result, Tensor, host_tensor};

/// With the batch norm behind it folded in. Stride 1 keeps the size; stride 2 has its padding after, as Keras' zero padding.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// (3, 3, C)
    kernel: Vec<f32>,
    bias: Vec<f32>,
    stride: usize,
}

impl Depthwise {
    pub(super) fn load(file: &KerasFile, name: &str, stride: usize) -> Result<Self> {
        // Keras' (3, 3, C, 1) becomes (C, 3, 3, 1), as the fold wants it.
        let kernel = file.get(&format!("{name}/depthwise_kernel"))?;
        let kernel = kernel.permute((2, 0, 1, 3))?;
        let (kernel, bias) = super::folded(file, &kernel, &format!("{name}_BN"))?;
        let kernel = kernel.squeeze(3)?.permute((1, 2, 0))?;
        Ok(Self {
            kernel: kernel.flatten_all()?.to_vec1()?,
            bias: bias.to_vec1()?,
            stride,
        })
    }

    /// `x`: (1, h, w, C) before its ReLU6. Result: (1, h', w', C) after its own.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, channels) = x.dims4()?;
        if channels != self.bias.len() {
            let own = self.bias.len();
            let detail = format!("a depthwise convolution of {own} channels got {channels}");
            return Err(KernelError::mismatch(detail));
        }
        let mut input = x.clone().into_host()?.flatten_all()?.to_vec1::<f32>()?;
        input.iter_mut().for_each(relu6);
        let (rows, columns) = (h / self.stride, w / self.stride);
        let mut output = Vec::with_capacity(rows * columns * channels);
        for y in 0..rows {
            for x in 0..columns {
                let start = output.len();
                output.extend_from_slice(&self.bias);
                let sum = &mut output[start..];
                for (tap, weights) in self.kernel.chunks_exact(channels).enumerate() {
                    let (Some(row), Some(column)) = (self.source(y, tap / 3, h), self.source(x, tap % 3, w))
                    else {
                        continue;
                    };
                    let at = (row * w + column) * channels;
                    let pixel = &input[at..at + channels];
                    for ((sum, pixel), weight) in sum.iter_mut().zip(pixel).zip(weights) {
                        *sum += pixel * weight;
                    }
                }
                sum.iter_mut().for_each(relu6);
            }
        }
        host_tensor(output, &[1, rows, columns, channels]).map(Tensor::Host)
    }

    /// Which line the tap of a result's line reads; None is padding.
    fn source(&self, result: usize, tap: usize, size: usize) -> Option<usize> {
        let before = usize::from(self.stride == 1);
        let at = (result * self.stride + tap).checked_sub(before)?;
        (at < size).then_some(at)
    }
}

fn relu6(value: &mut f32) {
    *value = value.clamp(0.0, 6.0);
}
