//! Operations on each number by itself.

use super::record::Record;
use crate::data::DType;
use crate::error::Result;
use crate::tensor::Tensor;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu = 0,
    /// With the error function, PyTorch's default.
    Gelu = 1,
    /// x · sigmoid(1.702 x), CLIP's.
    QuickGelu = 2,
    /// The number, or 0 where it is negative.
    Relu = 3,
    /// The hyperbolic tangent.
    Tanh = 4,
}

/// `activation` of each number of `x`, f32 or f16.
///
/// # Errors
/// When `x` is not a float tensor of the program.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let record = Record::new("activate", [x])?;
    let dtype = record.float([x])?;
    let y = record.result(x.shape(), dtype)?;
    record
        .launch("activate", dtype)
        .tensor(x)
        .tensor(&y)
        .long(x.elements())
        .int(activation as usize)
        .over(x.elements())?;
    Ok(y)
}

/// x · `scale` + `shift`.
///
/// # Errors
/// As [`activate`].
pub fn affine(x: &Tensor, scale: f32, shift: f32) -> Result<Tensor> {
    let record = Record::new("affine", [x])?;
    let dtype = record.float([x])?;
    let y = record.result(x.shape(), dtype)?;
    record
        .launch("affine", dtype)
        .tensor(x)
        .tensor(&y)
        .long(x.elements())
        .float(scale)
        .float(shift)
        .over(x.elements())?;
    Ok(y)
}

/// The first half of each line of `h` (…, 2 D) times the GELU of the second half: (…, D). The second step of GEGLU
/// (Shazeer, 2020).
///
/// # Errors
/// When the last side is odd, or `h` is not a float tensor of the program.
pub fn geglu(h: &Tensor) -> Result<Tensor> {
    let record = Record::new("geglu", [h])?;
    let dtype = record.float([h])?;
    let mut shape = h.shape().to_vec();
    let Some(last) = shape.last_mut().filter(|last| **last % 2 == 0 && **last > 0) else {
        return Err(record.mismatch("an even last side is needed"));
    };
    *last /= 2;
    let width = *last;
    let y = record.result(&shape, dtype)?;
    record
        .launch("geglu", dtype)
        .tensor(h)
        .tensor(&y)
        .long(y.elements() / width)
        .int(width)
        .over(y.elements())?;
    Ok(y)
}

/// `x` + `other`. `other` has the shape of `x`; or that of `x` with sides of 1 where each number is added to all along that
/// side: (B, 1, …, C) adds to every place of a row, (1, T, C) to every row.
///
/// # Errors
/// When the shapes do not fit so, or the operands are not floats of one type.
pub fn add(x: &Tensor, other: &Tensor) -> Result<Tensor> {
    let record = Record::new("add", [x, other])?;
    let dtype = record.float([x, other])?;
    let Some((row, step, period)) = places(x.shape(), other.shape()) else {
        return Err(record.mismatch("the second cannot be added to all of the first"));
    };
    let y = record.result(x.shape(), dtype)?;
    record
        .launch("add", dtype)
        .tensor(x)
        .tensor(other)
        .tensor(&y)
        .long(x.elements())
        .long(row)
        .long(step)
        .long(period)
        .over(x.elements())?;
    Ok(y)
}

/// Numbers of `x` in a row, those of `other` from row to row, and the period inside of a row.
fn places(x: &[usize], other: &[usize]) -> Option<(usize, usize, usize)> {
    if x.len() != other.len() {
        return None;
    }
    let elements: usize = x.iter().product();
    let equal = x
        .iter()
        .zip(other)
        .rev()
        .take_while(|(x, other)| x == other)
        .count();
    let (outer, inner) = other.split_at(other.len() - equal);
    // Of a tensor without numbers every place is right.
    let period = inner.iter().product::<usize>().max(1);
    match outer {
        [first, between @ ..] if between.iter().all(|side| *side == 1) => {
            if *first == 1 {
                Some((elements.max(1), 0, period))
            } else if *first == x[0] {
                Some(((elements / x[0].max(1)).max(1), period, period))
            } else {
                None
            }
        }
        [] => Some((elements.max(1), 0, period)),
        [..] => None,
    }
}

/// `x` plus the row's scale times `other`: `x` and `other` (B, …) of one type, `scales` (B,) in f32. How strongly a second
/// attention counts is such a scale.
///
/// # Errors
/// When the shapes or types do not fit.
pub fn add_scaled(x: &Tensor, other: &Tensor, scales: &Tensor) -> Result<Tensor> {
    let record = Record::new("add scaled", [x, other, scales])?;
    let dtype = record.float([x, other])?;
    record.ensure(
        x.shape() == other.shape() && !x.shape().is_empty() && scales.shape() == &x.shape()[..1],
        "two equal shapes (B, …) and (B,) are needed",
    )?;
    record.ensure(scales.dtype() == DType::F32, "scales are f32")?;
    let y = record.result(x.shape(), dtype)?;
    record
        .launch("add_scaled", dtype)
        .tensor(x)
        .tensor(other)
        .tensor(scales)
        .tensor(&y)
        .long(x.elements())
        .long(x.elements().checked_div(x.shape()[0]).unwrap_or(0).max(1))
        .over(x.elements())?;
    Ok(y)
}

/// `x` in another float type, rounded to nearest; itself where it is of that type.
///
/// # Errors
/// When either type is no float.
pub fn convert(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let record = Record::new("convert", [x])?;
    let from = record.float([x])?;
    let is_float = matches!(dtype, DType::F32 | DType::F16);
    record.ensure(is_float, "floats become floats")?;
    let y = record.result(x.shape(), dtype)?;
    record
        .launch_named(format!("convert_{}_{}", from.suffix(), dtype.suffix()))
        .tensor(x)
        .tensor(&y)
        .long(x.elements())
        .over(x.elements())?;
    Ok(y)
}
