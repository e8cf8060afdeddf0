//! Convolutions of images, by a library.

use super::layout::columns;
use super::record::Record;
use super::weights::{filled, reordered, upload};
use crate::command::{Command, ConvCall};
use crate::data::{DType, HostData};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Channels that come in.
    pub inputs: usize,
    /// Channels that come out.
    pub outputs: usize,
    /// Side of the kernel: 1 or 3.
    pub side: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Lines of zeros above, and columns of zeros to the left.
    pub before: usize,
    /// Lines of zeros below, and columns of zeros to the right.
    pub after: usize,
}

/// A convolution.
#[derive(Clone, Debug)]
pub struct Conv2d {
    shape: ConvShape,
    /// (outputs, side, side, inputs), channels filled up.
    weight: Tensor,
    /// (outputs,), filled up.
    bias: Option<Tensor>,
}

impl Conv2d {
    /// Of `weight` (outputs, inputs, side, side) and `bias` (outputs,), in `dtype`: as given, or rounded to nearest. The order
    /// is changed here, once.
    ///
    /// # Errors
    /// When the lengths do not fit or `dtype` is no float, or as [`Tensor::upload`].
    pub fn new(
        gpu: &Gpu,
        shape: ConvShape,
        weight: HostData<'_>,
        bias: Option<HostData<'_>>,
        dtype: DType,
    ) -> Result<Self> {
        let ConvShape {
            inputs,
            outputs,
            side,
            stride,
            ..
        } = shape;
        let wrong = |what: String| Err(Error::operands("convolution", what));
        if inputs * outputs * side * stride == 0 {
            return wrong(format!("{shape:?} has no numbers"));
        }
        if weight.len() != inputs * outputs * side * side || bias.is_some_and(|bias| bias.len() != outputs) {
            let biases = bias.map_or(0, |bias| bias.len());
            return wrong(format!(
                "{} weights and {biases} biases for {shape:?}",
                weight.len()
            ));
        }
        let (inner, outer) = (filled(inputs, dtype), filled(outputs, dtype));
        let place = |i: usize| {
            let (output, input, place) = (
                i / (inputs * side * side),
                i / (side * side) % inputs,
                i % (side * side),
            );
            (output * side * side + place) * inner + input
        };
        let weight = reordered(weight, outer * side * side * inner, place)?;
        let bias = bias.map(|bias| reordered(bias, outer, |i| i)).transpose()?;
        Ok(Self {
            shape,
            weight: upload(gpu, &[outer, side, side, inner], HostData::F32(&weight), dtype)?,
            bias: bias
                .map(|bias| upload(gpu, &[outer], HostData::F32(&bias), dtype))
                .transpose()?,
        })
    }

    /// Its sizes.
    #[must_use]
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.weight.size_bytes() + self.bias.as_ref().map_or(0, Tensor::size_bytes)
    }

    /// The size (h, w) of what an image of this size becomes.
    #[must_use]
    pub fn output_size(&self, (h, w): (usize, usize)) -> (usize, usize) {
        let ConvShape {
            side,
            stride,
            before,
            after,
            ..
        } = self.shape;
        let of = |length: usize| (length + before + after + stride).saturating_sub(side) / stride;
        (of(h), of(w))
    }

    /// `x` (B, h, w, inputs) to (B, h', w', outputs). Sums are in f32 and rounded once.
    ///
    /// # Errors
    /// When a shape or a type does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ConvShape {
            inputs,
            outputs,
            side,
            stride,
            before,
            ..
        } = self.shape;
        let checked = Record::new("convolution", [x, &self.weight])?;
        let dtype = checked.float([x, &self.weight])?;
        let &[rows, h, w, channels] = x.shape() else {
            return Err(checked.mismatch("(B, h, w, C) is needed"));
        };
        checked.ensure(channels == inputs, format_args!("{inputs} channels are needed"))?;
        let &[outer, _, _, inner] = self.weight.shape() else {
            return Err(checked.mismatch("a kernel has four sides"));
        };
        let filled = if inner == inputs {
            x.clone()
        } else {
            columns(x, 0, inner)?
        };
        let to = self.output_size((h, w));
        let operands = [Some(&filled), Some(&self.weight), self.bias.as_ref()];
        let record = Record::new("convolution", operands.into_iter().flatten())?;
        let y = record.result(&[rows, to.0, to.1, outer], dtype)?;
        if y.elements() > 0 {
            record.push(Command::Conv(ConvCall {
                dtype,
                rows,
                from: (h, w),
                to,
                inputs: inner,
                outputs: outer,
                side,
                stride,
                before,
                x: filled.span(),
                weight: self.weight.span(),
                bias: self.bias.as_ref().map(Tensor::span),
                y: y.span(),
            }))?;
        }
        if outer == outputs {
            Ok(y)
        } else {
            columns(&y, 0, outputs)
        }
    }
}
