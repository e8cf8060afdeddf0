//! Linear layers: products with weights, by a library.

use super::elementwise::add;
use super::layout::columns;
use super::record::Record;
use super::weights::{filled, reordered, upload};
use crate::command::{Command, LinearCall};
use crate::data::{DType, HostData};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A linear layer.
#[derive(Clone, Debug)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    /// (outputs, inputs), both filled up as channels are.
    weight: Tensor,
    /// (outputs,), filled up.
    bias: Option<Tensor>,
}

impl Linear {
    /// Of `weight` (`outputs`, `inputs`) and `bias` (`outputs`,), in `dtype`: as given, or rounded to nearest.
    ///
    /// # Errors
    /// When the lengths do not fit or `dtype` is no float, or as [`Tensor::upload`].
    pub fn new(
        gpu: &Gpu,
        (outputs, inputs): (usize, usize),
        weight: HostData<'_>,
        bias: Option<HostData<'_>>,
        dtype: DType,
    ) -> Result<Self> {
        if inputs * outputs == 0
            || weight.len() != inputs * outputs
            || bias.is_some_and(|bias| bias.len() != outputs)
        {
            let biases = bias.map_or(0, |bias| bias.len());
            let what = format!(
                "{} weights and {biases} biases for {outputs}x{inputs}",
                weight.len()
            );
            return Err(Error::operands("linear", what));
        }
        let (inner, outer) = (filled(inputs, dtype), filled(outputs, dtype));
        let (weight, bias) = if (inner, outer) == (inputs, outputs) {
            let bias = bias.map(|bias| upload(gpu, &[outer], bias, dtype)).transpose()?;
            (upload(gpu, &[outer, inner], weight, dtype)?, bias)
        } else {
            let weight = reordered(weight, outer * inner, |i| i / inputs * inner + i % inputs)?;
            let bias = bias.map(|bias| reordered(bias, outer, |i| i)).transpose()?;
            let bias = bias.map(|bias| upload(gpu, &[outer], HostData::F32(&bias), dtype));
            let weight = upload(gpu, &[outer, inner], HostData::F32(&weight), dtype)?;
            (weight, bias.transpose()?)
        };
        Ok(Self {
            inputs,
            outputs,
            weight,
            bias,
        })
    }

    /// Numbers of a line that comes in, and of one that comes out.
    #[must_use]
    pub fn sides(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.weight.size_bytes() + self.bias.as_ref().map_or(0, Tensor::size_bytes)
    }

    /// `x` (B, …, inputs) times the weights, plus bias and `residual` (B, …, outputs): (B, …, outputs). Sums are in f32 and
    /// rounded once, before the residual is added.
    ///
    /// # Errors
    /// When a shape or a type does not fit.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let operands = [Some(x), residual, Some(&self.weight), self.bias.as_ref()];
        let record = Record::new("linear", operands.into_iter().flatten())?;
        record.float([x, &self.weight].into_iter().chain(residual))?;
        let (inputs, outputs) = self.sides();
        let Some((_, lines)) = x.shape().split_last().filter(|(last, _)| **last == inputs) else {
            return Err(record.mismatch(format_args!("lines of {inputs} numbers are needed")));
        };
        let shape: Vec<usize> = lines.iter().copied().chain([outputs]).collect();
        let fits = residual.is_none_or(|residual| residual.shape() == shape);
        record.ensure(fits, format_args!("the residual has to be {shape:?}"))?;
        let &[outer, inner] = self.weight.shape() else {
            return Err(record.mismatch("a matrix has two sides"));
        };
        if (inner, outer) == (inputs, outputs) {
            return self.product(x, residual);
        }
        let filled = if inner == inputs {
            x.clone()
        } else {
            columns(x, 0, inner)?
        };
        if outer == outputs {
            return self.product(&filled, residual);
        }
        let y = columns(&self.product(&filled, None)?, 0, outputs)?;
        residual.map_or(Ok(y.clone()), |residual| add(&y, residual))
    }

    /// The product of what has been filled up.
    fn product(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let operands = [Some(x), residual, Some(&self.weight), self.bias.as_ref()];
        let record = Record::new("linear", operands.into_iter().flatten())?;
        let (&[outputs, inputs], Some((_, lines))) = (self.weight.shape(), x.shape().split_last()) else {
            return Err(record.mismatch("lines are needed"));
        };
        let shape: Vec<usize> = lines.iter().copied().chain([outputs]).collect();
        let y = record.result(&shape, x.dtype())?;
        if y.elements() == 0 {
            return Ok(y);
        }
        record.push(Command::Linear(LinearCall {
            dtype: x.dtype(),
            rows: lines.first().copied().unwrap_or(1),
            lines: lines.iter().product(),
            inputs,
            outputs,
            x: x.span(),
            weight: self.weight.span(),
            bias: self.bias.as_ref().map(Tensor::span),
            residual: residual.map(Tensor::span),
            y: y.span(),
        }))?;
        Ok(y)
    }
}
