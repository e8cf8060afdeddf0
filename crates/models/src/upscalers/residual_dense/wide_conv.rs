//! A 5x5 convolution by four of 3x3, for which there is a kernel.

use crate::keras_file::{KerasFile, conv2d};
use crate::layers::{Conv2d, ConvFusion, HostTensor, KernelError, Result, Stride, Tensor};

/// With a line of zeros after it in both directions, a kernel of 5x5 is four of 3x3 side by side, each of which sees the
/// picture moved by three pixels.
#[derive(Debug)]
pub(super) struct WideConv {
    /// Top left, top right, bottom left, bottom right.
    quarters: Vec<Conv2d>,
}

impl WideConv {
    pub(super) fn load(file: &KerasFile, name: &str) -> Result<Self> {
        let kernel = file.kernel(name)?;
        if kernel.dims()[2..] != [5, 5] {
            let found = kernel.dims();
            let detail = format!("{name}: a kernel of 5x5 is expected, this is {found:?}");
            return Err(KernelError::mismatch(detail));
        }
        let kernel = kernel.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
        let bias = file.bias(name)?;
        let quarter = |number: usize| {
            let (row, column) = (number / 2, number % 2);
            let kernel = kernel.narrow(2, 3 * row, 3)?.narrow(3, 3 * column, 3)?;
            // Added once.
            let bias = if number == 0 {
                bias.clone()
            } else {
                bias.zeros_like()?
            };
            conv2d(name, &kernel, bias, Stride::One)
        };
        Ok(Self {
            quarters: (0..4).map(quarter).collect::<Result<_>>()?,
        })
    }

    /// `x`: (1, h, w, inputs). Result: (1, h, w, outputs).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = x.dims4()?;
        let x = x.clone().into_host()?;
        let padded = x.pad_with_zeros(1, 2, 2)?.pad_with_zeros(2, 2, 2)?.contiguous()?;
        let padded = Tensor::Host(padded);
        let mut sum: Option<HostTensor> = None;
        for (number, quarter) in self.quarters.iter().enumerate() {
            let (row, column) = (number / 2, number % 2);
            // Line p of the result needs lines p - 2 + 3 row to p + 3 row of `x`. The convolution's line q has read q - 1 to
            // q + 1 of `padded`, which begins two lines before `x`.
            let part = quarter.forward(&padded, ConvFusion::default())?.into_host()?;
            let part = part.narrow(1, 1 + 3 * row, h)?.narrow(2, 1 + 3 * column, w)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part.contiguous()?,
            });
        }
        match sum {
            Some(sum) => Ok(Tensor::Host(sum)),
            None => Err(KernelError::mismatch("a convolution without parts")),
        }
    }
}
