//! Linear layers.

use super::{Epilogue, Multiply, Target};
use crate::buffer::written;
use crate::isa::Isa;
use crate::packed::Packed;
use crate::simd::{PANEL, Rows};
use crate::values::{Values, slice, to_f32s, values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// What a linear layer applies to its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// x · sigmoid(x)
    Silu,
    /// x · sigmoid(1.702 x), CLIP's.
    QuickGelu,
    /// With the error function, PyTorch's default.
    Gelu,
}

/// A linear layer with packed weights.
#[derive(Debug)]
pub struct Linear {
    packed: Packed,
    /// As long as the packed columns.
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
    gated: bool,
}

impl Linear {
    /// A layer of `weight` (outputs, inputs) in f32, f16 or bf16 and `bias` (outputs,).
    ///
    /// # Errors
    /// When the shapes do not fit each other, or a tensor is not on the CPU.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (outputs, _) = weight.dims2()?;
        Self::packed(weight, bias, &(0..outputs).collect::<Vec<_>>(), false)
    }

    /// GEGLU (Shazeer, 2020): the first half of `weight`'s rows times the GELU of the second half's.
    ///
    /// # Errors
    /// As [`Linear::new`], and when the number of rows is not even.
    pub fn geglu(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (rows, _) = weight.dims2()?;
        if rows % 2 != 0 {
            candle_core::bail!("the two halves of GEGLU have {rows} rows together")
        }
        let half = rows / 2;
        // A panel of hidden columns, then the panel of their gates, so that one task has both. A short last panel is
        // filled with copies of its first column, whose results are not stored.
        let mut columns = Vec::with_capacity(2 * half.next_multiple_of(PANEL));
        for first in (0..half).step_by(PANEL) {
            let column = |j: usize| if first + j < half { first + j } else { first };
            columns.extend((0..PANEL).map(column));
            columns.extend((0..PANEL).map(|j| half + column(j)));
        }
        Self::packed(weight, bias, &columns, true)
    }

    fn packed(weight: &Tensor, bias: Option<&Tensor>, columns: &[usize], gated: bool) -> Result<Self> {
        let (rows, inputs) = weight.dims2()?;
        let bias = bias.map(|bias| pad_bias(bias, rows, columns)).transpose()?;
        Ok(Self {
            packed: Packed::new(weight, inputs, |k| k, columns)?,
            bias,
            inputs,
            outputs: if gated { rows / 2 } else { rows },
            gated,
        })
    }

    /// Bytes that the packed weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, Vec::capacity);
        self.packed.size_bytes() + bias * size_of::<f32>()
    }

    /// `x`: (…, inputs), contiguous f32; `residual`: (…, outputs), added after the activation. Result: (…, outputs).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is not contiguous f32 on the CPU.
    pub fn forward(&self, x: &Tensor, activation: Activation, residual: Option<&Tensor>) -> Result<Tensor> {
        x.apply_op1_no_bwd(&LinearOp {
            layer: self,
            activation,
            residual,
            isa: Isa::detect(),
        })
    }

    #[cfg(test)]
    pub(super) fn forward_with(
        &self,
        isa: Isa,
        x: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        x.apply_op1_no_bwd(&LinearOp {
            layer: self,
            activation,
            residual,
            isa,
        })
    }
}

/// `bias` in the order of `columns`, filled up to whole panels with zeros.
pub(crate) fn pad_bias(bias: &Tensor, length: usize, columns: &[usize]) -> Result<Vec<f32>> {
    let bias = to_f32s(bias)?;
    if bias.len() != length {
        candle_core::bail!("a bias of {} numbers beside {length} columns", bias.len())
    }
    let mut padded = Vec::with_capacity(columns.len().next_multiple_of(PANEL));
    padded.extend(columns.iter().map(|&column| bias[column]));
    padded.resize(columns.len().next_multiple_of(PANEL), 0.0);
    Ok(padded)
}

struct LinearOp<'a> {
    layer: &'a Linear,
    activation: Activation,
    residual: Option<&'a Tensor>,
    isa: Isa,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims = layout.dims();
        let Some((&inputs, rows)) = dims
            .split_last()
            .filter(|(inputs, _)| **inputs == self.layer.inputs)
        else {
            candle_core::bail!("a linear layer of {} inputs got {dims:?}", self.layer.inputs)
        };
        let x = slice(x, layout)?;
        let mut shape = rows.to_vec();
        shape.push(self.layer.outputs);
        let residual = self.residual.map(values).transpose()?;
        let residual = residual.as_ref().map(Values::get);
        let rows: usize = rows.iter().product();
        debug_assert_eq!(x.len(), rows * inputs);
        if let Some(residual) = residual
            && residual.len() != rows * self.layer.outputs
        {
            candle_core::bail!("a residual of {} numbers for {shape:?}", residual.len())
        }
        Ok((
            CpuStorage::F32(self.compute(x, rows, residual)),
            Shape::from(shape),
        ))
    }
}

impl LinearOp<'_> {
    fn compute(&self, x: &[f32], rows: usize, residual: Option<&[f32]>) -> Vec<f32> {
        let layer = self.layer;
        let fill = |out: *mut f32| {
            let multiply = Multiply {
                packed: &layer.packed,
                gated: layer.gated,
                rows: Rows {
                    first: x.as_ptr(),
                    stride: layer.inputs,
                    step: 1,
                    count: rows,
                },
                epilogue: Epilogue {
                    bias: layer.bias.as_ref().map_or(std::ptr::null(), |b| b.as_ptr()),
                    activation: self.activation,
                    columns: layer.outputs,
                },
                target: Target {
                    out,
                    residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                    stride: layer.outputs,
                    rows,
                },
            };
            // SAFETY: the lengths have been checked against the shapes.
            unsafe { multiply.run(self.isa) }
        };
        // SAFETY: the product covers all rows and columns.
        unsafe { written(rows * layer.outputs, fill) }
    }
}
