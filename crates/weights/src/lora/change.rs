//! The change of one layer: what is added to its weight and its bias, or the two thin matrices of a branch beside it.

use candle_core::{DType, Result, Tensor};

use super::form::{Form, Matrix, Side, along};
use crate::WeightsError;

/// What a LoRA does to one layer, in f32 on the CPU. A strength of 1 applies it as it was trained.
#[derive(Clone, Debug)]
pub struct LayerChange {
    /// The layer's name, for messages.
    pub(super) layer: String,
    /// The layer's weight as the checkpoint has it.
    pub(super) dims: Vec<usize>,
    pub(super) form: Form<Tensor>,
    /// alpha / rank by the formula of the module's format; 1 where it has neither.
    pub(super) scale: f64,
    /// The lengths that the rows or columns of the changed weight get: DoRA.
    pub(super) magnitude: Option<(Tensor, Side)>,
    pub(super) bias: Option<BiasChange>,
}

/// What happens to a bias.
#[derive(Clone, Debug)]
pub(super) enum BiasChange {
    /// It gets longer by this, times the given factor.
    Sum(Tensor, f64),
    /// It is multiplied by this: (IA)³ of PEFT on outputs.
    Scaling(Tensor),
}

/// y + strength · scale · up(down(x)), for layers that are matrices.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// (r, inputs)
    pub down: &'a Tensor,
    /// (outputs, r)
    pub up: &'a Tensor,
    /// alpha / r, or as the file's format has it.
    pub scale: f64,
}

impl LayerChange {
    /// The change as a branch beside the layer. None where it is of another form: LoHa, LoKr, DoRA, a 3x3 convolution, a whole
    /// difference, (IA)³, a norm, or where the bias changes too.
    #[must_use]
    pub fn low_rank(&self) -> Option<LowRank<'_>> {
        let is_matrix = matches!(*self.dims, [_, _] | [_, _, 1, 1]);
        match &self.form {
            Form::Sum(Matrix::Product(up, down))
                if is_matrix && self.magnitude.is_none() && self.bias.is_none() =>
            {
                Some(LowRank {
                    down,
                    up,
                    scale: self.scale,
                })
            }
            Form::Sum(_)
            | Form::Hadamard(..)
            | Form::Kronecker(..)
            | Form::Scaling { .. }
            | Form::Nothing => None,
        }
    }

    /// What to add to the weight, in f32, with the weight's dimensions. `base` is the checkpoint's own weight, in any dtype,
    /// and nothing is ever computed from one that was changed before. At most a few tensors of the weight's size are made.
    ///
    /// With DoRA (arXiv 2402.09353, equation 5) the strength is inside the norm, as in PEFT.
    ///
    /// # Errors
    /// [`WeightsError::Change`] when `base` has other dimensions, or there is no memory.
    pub fn weight_delta(&self, base: &Tensor, strength: f64) -> std::result::Result<Tensor, WeightsError> {
        self.delta(base, strength).map_err(|source| self.failed(source))
    }

    fn delta(&self, base: &Tensor, strength: f64) -> Result<Tensor> {
        if base.dims() != self.dims {
            candle_core::bail!(
                "the weight has dimensions {:?}, expected {:?}",
                base.dims(),
                self.dims
            );
        }
        let outputs = self.dims.first().copied().unwrap_or(1);
        let kernel: usize = self.dims.iter().skip(2).product();
        let base = base.to_dtype(DType::F32)?.contiguous()?;
        let base = base.reshape((outputs, base.elem_count() / outputs.max(1)))?;
        let difference = match self.form.difference(&base, kernel)? {
            Some(difference) => (difference * (self.scale * strength))?,
            None if self.magnitude.is_none() => return Tensor::zeros(&*self.dims, DType::F32, base.device()),
            None => base.zeros_like()?,
        };
        let delta = match &self.magnitude {
            None => difference,
            Some((magnitude, side)) => {
                let changed = (&base + difference)?;
                (with_lengths(&changed, *side, kernel, magnitude)? - &base)?
            }
        };
        delta.reshape(&*self.dims)
    }

    /// What to add to the bias, in f32; None where it stays. `base` is the checkpoint's own, which only some forms need.
    ///
    /// # Errors
    /// [`WeightsError::Change`] when the bias that is needed is missing or has another length.
    pub fn bias_delta(
        &self,
        base: Option<&Tensor>,
        strength: f64,
    ) -> std::result::Result<Option<Tensor>, WeightsError> {
        let delta = match (&self.bias, base) {
            (None, _) | (Some(BiasChange::Scaling(_)), None) => return Ok(None),
            (Some(BiasChange::Sum(by, factor)), _) => by * (factor * strength),
            (Some(BiasChange::Scaling(by)), Some(base)) => base
                .to_dtype(DType::F32)
                .and_then(|base| ((by - 1.0)? * base)? * strength),
        };
        delta.map(Some).map_err(|source| self.failed(source))
    }

    /// The shape of the weight that it changes.
    #[must_use]
    pub fn weight_dims(&self) -> &[usize] {
        &self.dims
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut add = |tensor: &Tensor| bytes += (tensor.elem_count() * size_of::<f32>()) as u64;
        self.form.each(&mut add);
        if let Some((magnitude, _)) = &self.magnitude {
            add(magnitude);
        }
        // What scales the bias is the numbers of the form.
        if let Some(BiasChange::Sum(by, _)) = &self.bias {
            add(by);
        }
        bytes
    }

    fn failed(&self, source: candle_core::Error) -> WeightsError {
        WeightsError::Change {
            layer: self.layer.clone(),
            source: Box::new(source),
        }
    }
}

/// `weight` with rows or columns of the given lengths. One that is zero has no direction and stays zero.
fn with_lengths(weight: &Tensor, side: Side, kernel: usize, lengths: &Tensor) -> Result<Tensor> {
    let (outputs, columns) = weight.dims2()?;
    let squares = weight
        .sqr()?
        .reshape((outputs, columns / kernel.max(1), kernel))?;
    let norms = match side {
        Side::Outputs => squares.sum((1, 2))?,
        Side::Inputs => squares.sum((0, 2))?,
    };
    let norms = norms.sqrt()?;
    let factors = (lengths / norms.maximum(f32::MIN_POSITIVE)?)?;
    along(
        weight,
        side,
        kernel,
        |weight, factors| weight.broadcast_mul(factors),
        &factors,
    )
}
