//! What a module of a LoRA file makes of a weight, as a formula over the tensors that the file has for it.
//!
//! All weights are matrices here: (outputs, inputs · kernel elements), one column for each element of a 3x3 kernel and one for
//! a norm. Sources: LoRA (arXiv 2106.09685, equation 3), LoHa (FedPara, arXiv 2108.06098, propositions 1 and 3), LoKr and the
//! Tucker form (LyCORIS, arXiv 2309.14859, section 3), (IA)³ (arXiv 2205.05638, equation 1).

use candle_core::{Result, Tensor};

/// A matrix as a file has it; `T` is a tensor, or where one lies.
#[derive(Clone, Debug)]
pub(super) enum Matrix<T> {
    /// (rows, columns)
    Whole(T),
    /// (rows, r) times (r, columns)
    Product(T, T),
    /// A core (r, q, k) between (r, rows) and (q, columns): rows by columns · k. `rows` may be stored the other way round.
    Tucker {
        core: T,
        rows: T,
        rows_first: bool,
        columns: T,
    },
}

impl<T> Matrix<T> {
    pub(super) fn try_map<U, E>(
        self,
        map: &mut impl FnMut(T) -> std::result::Result<U, E>,
    ) -> std::result::Result<Matrix<U>, E> {
        Ok(match self {
            Self::Whole(whole) => Matrix::Whole(map(whole)?),
            Self::Product(left, right) => Matrix::Product(map(left)?, map(right)?),
            Self::Tucker {
                core,
                rows,
                rows_first,
                columns,
            } => Matrix::Tucker {
                core: map(core)?,
                rows: map(rows)?,
                rows_first,
                columns: map(columns)?,
            },
        })
    }

    fn each(&self, visit: &mut impl FnMut(&T)) {
        match self {
            Self::Whole(whole) => visit(whole),
            Self::Product(left, right) => {
                visit(left);
                visit(right);
            }
            Self::Tucker {
                core, rows, columns, ..
            } => {
                visit(core);
                visit(rows);
                visit(columns);
            }
        }
    }
}

impl Matrix<Tensor> {
    /// The matrix itself.
    fn whole(&self) -> Result<Tensor> {
        match self {
            Self::Whole(whole) => Ok(whole.clone()),
            Self::Product(left, right) => left.matmul(right),
            Self::Tucker {
                core,
                rows,
                rows_first,
                columns,
            } => {
                let rows = if *rows_first {
                    rows.clone()
                } else {
                    rows.t()?.contiguous()?
                };
                tucker(core, &rows, columns)
            }
        }
    }
}

/// `core` (r, q, k), `rows` (outputs, r), `columns` (q, inputs) to (outputs, inputs · k). The smaller side is multiplied
/// first, so that nothing on the way is larger than the result while r and q are at most the larger side.
fn tucker(core: &Tensor, rows: &Tensor, columns: &Tensor) -> Result<Tensor> {
    let (r, q, k) = core.dims3()?;
    let (outputs, inputs) = (rows.dim(0)?, columns.dim(1)?);
    let kernel_first = if inputs <= outputs {
        let core = core.permute((0, 2, 1))?.contiguous()?.reshape((r * k, q))?;
        let inner = core.matmul(columns)?.reshape((r, k * inputs))?;
        rows.matmul(&inner)?
    } else {
        let inner = rows.matmul(&core.reshape((r, q * k))?)?;
        let inner = inner.reshape((outputs, q, k))?.permute((0, 2, 1))?.contiguous()?;
        inner.reshape((outputs * k, q))?.matmul(columns)?
    };
    let kernel_last = kernel_first.reshape((outputs, k, inputs))?.permute((0, 2, 1))?;
    kernel_last.contiguous()?.reshape((outputs, inputs * k))
}

/// The side of a weight that has one number for each of its rows or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Outputs,
    Inputs,
}

/// How a module changes a weight W.
#[derive(Clone, Debug)]
pub(super) enum Form<T> {
    /// W + M: LoRA, LoCon, full differences and norms.
    Sum(Matrix<T>),
    /// W + M ∘ N, element by element: LoHa.
    Hadamard(Matrix<T>, Matrix<T>),
    /// W + M ⊗ N: LoKr.
    Kronecker(Matrix<T>, Matrix<T>),
    /// W + W · l for each row or column, or W · l where `from_one`: (IA)³ as LyCORIS and as PEFT store it.
    Scaling { by: T, side: Side, from_one: bool },
    /// W: only the bias changes.
    Nothing,
}

impl<T> Form<T> {
    pub(super) fn try_map<U, E>(
        self,
        map: &mut impl FnMut(T) -> std::result::Result<U, E>,
    ) -> std::result::Result<Form<U>, E> {
        Ok(match self {
            Self::Sum(matrix) => Form::Sum(matrix.try_map(map)?),
            Self::Hadamard(left, right) => Form::Hadamard(left.try_map(map)?, right.try_map(map)?),
            Self::Kronecker(left, right) => Form::Kronecker(left.try_map(map)?, right.try_map(map)?),
            Self::Scaling { by, side, from_one } => Form::Scaling {
                by: map(by)?,
                side,
                from_one,
            },
            Self::Nothing => Form::Nothing,
        })
    }

    pub(super) fn each(&self, visit: &mut impl FnMut(&T)) {
        match self {
            Self::Sum(matrix) => matrix.each(visit),
            Self::Hadamard(left, right) | Self::Kronecker(left, right) => {
                left.each(visit);
                right.each(visit);
            }
            Self::Scaling { by, .. } => visit(by),
            Self::Nothing => {}
        }
    }
}

impl Form<Tensor> {
    /// What it adds to `weight` (outputs, columns), whose kernel has `kernel` elements, before any factor. None for nothing.
    pub(super) fn difference(&self, weight: &Tensor, kernel: usize) -> Result<Option<Tensor>> {
        Ok(Some(match self {
            Self::Sum(matrix) => matrix.whole()?,
            Self::Hadamard(left, right) => (left.whole()? * right.whole()?)?,
            Self::Kronecker(left, right) => kronecker(&left.whole()?, &right.whole()?)?,
            Self::Scaling { by, side, from_one } => {
                let by = if *from_one { (by - 1.0)? } else { by.clone() };
                along(weight, *side, kernel, |weight, by| weight.broadcast_mul(by), &by)?
            }
            Self::Nothing => return Ok(None),
        }))
    }
}

/// (a, b) and (c, d) to (a · c, b · d). The kernel of a convolution stays with the second factor's columns.
fn kronecker(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let ((a, b), (c, d)) = (left.dims2()?, right.dims2()?);
    let product = left
        .reshape((a, 1, b, 1))?
        .broadcast_mul(&right.reshape((1, c, 1, d))?)?;
    product.reshape((a * c, b * d))
}

/// Applies `apply` to `weight` (outputs, inputs · kernel) and one number for each output or input.
pub(super) fn along(
    weight: &Tensor,
    side: Side,
    kernel: usize,
    apply: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    numbers: &Tensor,
) -> Result<Tensor> {
    let (outputs, columns) = weight.dims2()?;
    let inputs = columns / kernel.max(1);
    let numbers = match side {
        Side::Outputs => numbers.reshape((outputs, 1, 1))?,
        Side::Inputs => numbers.reshape((1, inputs, 1))?,
    };
    apply(&weight.reshape((outputs, inputs, kernel))?, &numbers)?.reshape((outputs, columns))
}
