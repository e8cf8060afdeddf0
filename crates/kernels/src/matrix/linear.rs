//! Linear layers.

use super::{Activation, Epilogue, Multiply, Operands, Target};
use crate::buffer::written;
use crate::isa::Isa;
use crate::packed::{Packed, Stored};
use crate::pairs::Form;
use crate::simd::{PANEL, Rows};
use crate::values::{Values, slice, to_f32s, values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// A linear layer with packed weights.
#[derive(Debug)]
pub struct Linear {
    packed: Packed,
    /// As long as the packed columns.
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
    gated: bool,
    form: Form,
}

/// A low-rank change of a layer that keeps the layer's own weights as they are: y = activation(W x + b + U D x).
///
/// The sums run on from W x into U (D x) in one pass, so that nothing is read or written twice; LoRA (Hu et al., 2021,
/// section 4.1) is this with U D = Σ strength · alpha / rank · B A.
#[derive(Debug)]
pub struct Branch {
    /// (rank, inputs)
    down: Packed,
    /// (outputs, rank), its columns in the order of the layer's.
    up: Packed,
    rank: usize,
    inputs: usize,
    /// Of the layer that it was made for.
    rows: usize,
    gated: bool,
}

impl Branch {
    /// Bytes that its packed weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.down.size_bytes() + self.up.size_bytes()
    }
}

impl Linear {
    /// A layer of `weight` (outputs, inputs) in f32, f16 or bf16 and `bias` (outputs,).
    ///
    /// # Errors
    /// When the shapes do not fit each other, or a tensor is not on the CPU.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Self::packed(weight, bias, (false, Form::Stored))
    }

    /// GEGLU (Shazeer, 2020): the first half of `weight`'s rows times the GELU of the second half's.
    ///
    /// # Errors
    /// As [`Linear::new`], and when the number of rows is not even.
    pub fn geglu(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Self::packed(weight, bias, (true, Form::Stored))
    }

    /// The same, [gated](Linear::geglu) or [not](Linear::new), with weights and inputs rounded to bfloat16 before they are
    /// multiplied; sums are in f32.
    ///
    /// # Errors
    /// As there.
    pub fn in_bf16(weight: &Tensor, bias: Option<&Tensor>, gated: bool) -> Result<Self> {
        Self::packed(weight, bias, (gated, Form::Pairs))
    }

    fn packed(weight: &Tensor, bias: Option<&Tensor>, (gated, form): (bool, Form)) -> Result<Self> {
        let (rows, inputs) = weight.dims2()?;
        if gated && rows % 2 != 0 {
            candle_core::bail!("the two halves of GEGLU have {rows} rows together")
        }
        let columns = order(rows, gated);
        let bias = bias.map(|bias| pad_bias(bias, rows, &columns)).transpose()?;
        Ok(Self {
            packed: Packed::new(Stored { weight, form }, inputs, |k| k, &columns)?,
            bias,
            inputs,
            outputs: if gated { rows / 2 } else { rows },
            gated,
            form,
        })
    }

    /// A branch beside this layer: `down` (rank, inputs) and `up` (outputs, rank), of as many outputs as the layer's weight
    /// has rows. Any factor is part of one of the two.
    ///
    /// # Errors
    /// When the shapes do not fit each other or this layer, or a tensor is not on the CPU.
    pub fn branch(&self, down: &Tensor, up: &Tensor) -> Result<Branch> {
        let rows = self.rows();
        let (rank, inputs) = down.dims2()?;
        if rank == 0 || inputs != self.inputs || up.dims() != [rows, rank] {
            candle_core::bail!(
                "a branch of {:?} and {:?} beside a layer of {} inputs and {rows} rows",
                down.dims(),
                up.dims(),
                self.inputs
            )
        }
        let stored = |weight| Stored {
            weight,
            form: self.form,
        };
        Ok(Branch {
            down: Packed::new(stored(down), inputs, |k| k, &order(rank, false))?,
            up: Packed::new(stored(up), rank, |k| k, &order(rows, self.gated))?,
            rank,
            inputs,
            rows,
            gated: self.gated,
        })
    }

    /// Rows of its weight.
    fn rows(&self) -> usize {
        if self.gated {
            2 * self.outputs
        } else {
            self.outputs
        }
    }

    /// Whether it multiplies bfloat16 numbers.
    #[must_use]
    pub fn is_bf16(&self) -> bool {
        self.form == Form::Pairs
    }

    /// Bytes that the packed weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, Vec::capacity);
        self.packed.size_bytes() + bias * size_of::<f32>()
    }

    /// `x`: (images, …, inputs), contiguous f32; `residual`: (images, …, outputs), added after the activation. Result:
    /// (images, …, outputs).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is not contiguous f32 on the CPU.
    pub fn forward(&self, x: &Tensor, activation: Activation, residual: Option<&Tensor>) -> Result<Tensor> {
        self.forward_beside(x, None, activation, residual)
    }

    /// As [`Linear::forward`], with the result of `branch` added before the activation. A row's bits do not depend on the
    /// other rows.
    ///
    /// # Errors
    /// As [`Linear::forward`], and when the branch was made for a layer of another shape.
    pub fn forward_beside(
        &self,
        x: &Tensor,
        branch: Option<&Branch>,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        x.apply_op1_no_bwd(&LinearOp {
            layer: self,
            branch,
            activation,
            residual,
            isa: Isa::detect(),
        })
    }

    #[cfg(test)]
    pub(super) fn forward_with(
        &self,
        (isa, branch): (Isa, Option<&Branch>),
        x: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        x.apply_op1_no_bwd(&LinearOp {
            layer: self,
            branch,
            activation,
            residual,
            isa,
        })
    }
}

/// The row of the weight for each packed column.
fn order(rows: usize, gated: bool) -> Vec<usize> {
    if !gated {
        return (0..rows).collect();
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
    columns
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
    branch: Option<&'a Branch>,
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
        let rows_of_image = rows.get(1..).unwrap_or_default().iter().product();
        let rows: usize = rows.iter().product();
        debug_assert_eq!(x.len(), rows * inputs);
        if let Some(residual) = residual
            && residual.len() != rows * self.layer.outputs
        {
            candle_core::bail!("a residual of {} numbers for {shape:?}", residual.len())
        }
        if let Some(branch) = self.branch
            && (branch.inputs, branch.rows, branch.gated) != (inputs, self.layer.rows(), self.layer.gated)
        {
            candle_core::bail!("the branch was made for a layer of another shape")
        }
        Ok((
            CpuStorage::F32(self.compute(x, (rows, rows_of_image), residual)),
            Shape::from(shape),
        ))
    }
}

impl LinearOp<'_> {
    fn compute(
        &self,
        x: &[f32],
        (rows, rows_of_image): (usize, usize),
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let layer = self.layer;
        let branch = self
            .branch
            .map(|branch| (branch, self.reduced(branch, x, (rows, rows_of_image))));
        let fill = |out: *mut f32| {
            let multiply = Multiply {
                main: operands(x, (rows, layer.inputs), &layer.packed),
                rows_of_image,
                branch: branch
                    .as_ref()
                    .map(|(branch, reduced)| operands(reduced, (rows, branch.rank), &branch.up)),
                gated: layer.gated,
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

    /// D x: (rows, rank).
    fn reduced(&self, branch: &Branch, x: &[f32], (rows, rows_of_image): (usize, usize)) -> Vec<f32> {
        let fill = |out: *mut f32| {
            let multiply = Multiply {
                main: operands(x, (rows, branch.inputs), &branch.down),
                rows_of_image,
                branch: None,
                gated: false,
                epilogue: Epilogue {
                    bias: std::ptr::null(),
                    activation: Activation::None,
                    columns: branch.rank,
                },
                target: Target {
                    out,
                    residual: std::ptr::null(),
                    stride: branch.rank,
                    rows,
                },
            };
            // SAFETY: the lengths have been checked against the shapes.
            unsafe { multiply.run(self.isa) }
        };
        // SAFETY: the product covers all rows and columns.
        unsafe { written(rows * branch.rank, fill) }
    }
}

/// `count` rows of `width` numbers each, side by side, and what they are multiplied by.
fn operands<'a>(x: &[f32], (count, width): (usize, usize), packed: &'a Packed) -> Operands<'a> {
    debug_assert_eq!((x.len(), packed.depth()), (count * width, width));
    Operands {
        rows: Rows {
            first: x.as_ptr(),
            stride: width,
            step: 1,
            count,
        },
        packed,
    }
}
