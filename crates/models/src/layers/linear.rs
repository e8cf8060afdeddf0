//! Matrix layers.
//!
//! candle folds the rows of a batch into one matrix product when the weight is shared, and a product of another shape
//! may round differently; so each row is multiplied on its own here.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// A linear layer on (B, T, in), to (B, T, out).
#[derive(Debug)]
pub(crate) struct Linear {
    /// (out, in)
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get((output, input), "weight")?,
            bias: Some(vb.get(output, "bias")?),
        })
    }

    pub(crate) fn without_bias(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get((output, input), "weight")?,
            bias: None,
        })
    }

    /// Two layers whose weights are the two halves of one: what GEGLU splits its result into, without the split.
    pub(crate) fn halves(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<(Self, Self)> {
        let weight = vb.get((2 * output, input), "weight")?;
        let bias = vb.get(2 * output, "bias")?;
        let half = |start: usize| -> Result<Self> {
            Ok(Self {
                weight: weight.narrow(0, start, output)?,
                bias: Some(bias.narrow(0, start, output)?),
            })
        };
        Ok((half(0)?, half(output)?))
    }

    /// `x`: (B, T, in) with any strides.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let weight = self.weight.t()?;
        let product = |row: usize| x.get(row)?.matmul(&weight)?.unsqueeze(0);
        let y = if rows == 1 {
            product(0)?
        } else {
            Tensor::cat(&(0..rows).map(product).collect::<Result<Vec<_>>>()?, 0)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The same product with the result's last two axes exchanged: (B, T, in) to (B, out, T), contiguous.
    ///
    /// With the weight on the left candle multiplies row by row by itself, and attention wants its operands so.
    pub(crate) fn forward_transposed(&self, x: &Tensor) -> Result<Tensor> {
        let y = self
            .weight
            .broadcast_left(x.dim(0)?)?
            .matmul(&x.transpose(1, 2)?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(&bias.unsqueeze(1)?),
            None => Ok(y),
        }
    }
}

/// A 1x1 convolution: a linear layer over the channels of (B, C, …), stored as a matrix or as a 1x1 kernel.
#[derive(Debug)]
pub(crate) struct Pointwise {
    linear: Linear,
}

impl Pointwise {
    /// Stored as a convolution's kernel (out, in, 1, 1).
    pub(crate) fn kernel(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            linear: Linear {
                weight: vb
                    .get((output, input, 1, 1), "weight")?
                    .reshape((output, input))?,
                bias: Some(vb.get(output, "bias")?),
            },
        })
    }

    /// Stored as a linear layer's matrix (out, in).
    pub(crate) fn matrix(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            linear: Linear::new(input, output, vb)?,
        })
    }

    /// (B, C, h, w) to (B, out, h, w).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, _, h, w) = x.dims4()?;
        let y = self
            .linear
            .forward_transposed(&x.flatten_from(2)?.transpose(1, 2)?)?;
        y.reshape((b, (), h, w))
    }

    /// (B, C, h, w) to tokens (B, T, out), T = h·w.
    pub(crate) fn to_tokens(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.forward(&x.flatten_from(2)?.transpose(1, 2)?)
    }

    /// Tokens (B, T, C) to (B, out, h, w), T = h·w.
    pub(crate) fn to_picture(&self, tokens: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let b = tokens.dim(0)?;
        self.linear
            .forward_transposed(tokens)?
            .reshape((b, (), size.0, size.1))
    }
}
