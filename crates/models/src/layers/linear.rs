//! Matrix layers. A 1x1 convolution is one too, over the channels of every pixel.

use candle_core::Result;
use candle_nn::VarBuilder;
use pentimento_kernels::Linear;

/// `input` to `output` numbers, stored as a matrix.
pub(crate) fn linear(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Linear> {
    Linear::new(
        &vb.get((output, input), "weight")?,
        Some(&vb.get(output, "bias")?),
    )
}

/// As [`linear`], without a bias.
pub(crate) fn linear_without_bias(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Linear> {
    Linear::new(&vb.get((output, input), "weight")?, None)
}

/// GEGLU (Shazeer, 2020): `output` numbers times the error-function GELU of as many gates.
pub(crate) fn geglu(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Linear> {
    let weight = vb.get((2 * output, input), "weight")?;
    Linear::geglu(&weight, Some(&vb.get(2 * output, "bias")?))
}

/// `input` to `output` channels, stored as a convolution's kernel (out, in, 1, 1).
pub(crate) fn pointwise(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Linear> {
    let weight = vb.get((output, input, 1, 1), "weight")?;
    Linear::new(&weight.reshape((output, input))?, Some(&vb.get(output, "bias")?))
}
