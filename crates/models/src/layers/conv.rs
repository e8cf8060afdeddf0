//! 3x3 convolutions.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Activation, Around, Conv2d, GroupNorm, Linear, Padding};

/// The ways in which the networks move a 3x3 kernel over a picture.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Keeps the size.
    Same,
    /// Halves the size, rounding up, with one pixel of padding on every side, as the UNet does.
    Halving,
    /// Halves the size, rounding down, with one pixel of padding at the right and the bottom only, as the VAE does.
    HalvingAfterRightBottomPad,
}

/// The convolution of `input` to `output` channels at `vb`.
pub(crate) fn conv(input: usize, output: usize, step: Step, vb: &VarBuilder<'_>) -> Result<Conv2d> {
    let (stride, padding) = match step {
        Step::Same => (1, Padding::SAME),
        Step::Halving => (2, Padding::SAME),
        Step::HalvingAfterRightBottomPad => (2, Padding { before: 0, after: 1 }),
    };
    let weight = vb.get((output, input, 3, 3), "weight")?;
    Conv2d::new(&weight, &vb.get(output, "bias")?, stride, padding)
}

/// `conv` of the norm and SiLU of `x`, with what else is around it.
pub(crate) fn normalised(norm: &GroupNorm, conv: &Conv2d, x: &Tensor, around: Around<'_>) -> Result<Tensor> {
    let norm = norm.of(x, true)?;
    let around = Around {
        norm: Some(&norm),
        ..around
    };
    conv.forward(x, around)
}

/// What a residual block adds to its result: `x`, projected where the number of channels changes, and then freed.
pub(crate) fn shortcut(projection: Option<&Linear>, x: Tensor) -> Result<Tensor> {
    match projection {
        Some(projection) => projection.forward(&x, Activation::None, None),
        None => Ok(x),
    }
}
