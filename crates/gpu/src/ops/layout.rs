//! Operations that move numbers.

use super::record::Record;
use crate::command::Command;
use crate::data::DType;
use crate::error::Result;
use crate::tensor::Tensor;

/// (B, …, C) to (B, C, …): channels from innermost to outermost.
///
/// # Errors
/// When `x` has fewer than three sides or is no float tensor of the program.
pub fn channels_first(x: &Tensor) -> Result<Tensor> {
    let record = Record::new("channels first", [x])?;
    let dtype = record.float([x])?;
    let [rows, places @ .., channels] = x.shape() else {
        return Err(record.mismatch("(B, …, C) is needed"));
    };
    record.ensure(!places.is_empty(), "(B, …, C) is needed")?;
    let shape: Vec<usize> = [*rows, *channels]
        .into_iter()
        .chain(places.iter().copied())
        .collect();
    let y = record.result(&shape, dtype)?;
    record
        .launch("channels_first", dtype)
        .tensor(x)
        .tensor(&y)
        .long(x.elements())
        .int(places.iter().product())
        .int(*channels)
        .over(x.elements())?;
    Ok(y)
}

/// (B, C, …) to (B, …, C): channels from outermost to innermost.
///
/// # Errors
/// As [`channels_first`].
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let record = Record::new("channels last", [x])?;
    let dtype = record.float([x])?;
    let [rows, channels, places @ ..] = x.shape() else {
        return Err(record.mismatch("(B, C, …) is needed"));
    };
    record.ensure(!places.is_empty(), "(B, C, …) is needed")?;
    let shape: Vec<usize> = std::iter::once(*rows)
        .chain(places.iter().copied())
        .chain([*channels])
        .collect();
    let y = record.result(&shape, dtype)?;
    record
        .launch("channels_last", dtype)
        .tensor(x)
        .tensor(&y)
        .long(x.elements())
        .int(places.iter().product())
        .int(*channels)
        .over(x.elements())?;
    Ok(y)
}

/// The rows of `x` (N, …) at `places` (M,) in i32: (M, …). A place that `x` does not have gives NaN.
///
/// # Errors
/// When the shapes or types do not fit.
pub fn gather(x: &Tensor, places: &Tensor) -> Result<Tensor> {
    let record = Record::new("gather", [x, places])?;
    let dtype = record.float([x])?;
    let ([available, row @ ..], [count]) = (x.shape(), places.shape()) else {
        return Err(record.mismatch("(N, …) and (M,) are needed"));
    };
    record.ensure(places.dtype() == DType::I32, "places are i32")?;
    let shape: Vec<usize> = std::iter::once(*count).chain(row.iter().copied()).collect();
    let y = record.result(&shape, dtype)?;
    record
        .launch("gather", dtype)
        .tensor(x)
        .tensor(places)
        .tensor(&y)
        .long(*count)
        .long(row.iter().product())
        .int(*available)
        .over(y.elements())?;
    Ok(y)
}

/// `count` numbers of each line of `x` (…, C) from `from` on, with zeros where the line has no more: (…, `count`).
///
/// # Errors
/// When `x` is no float tensor of the program.
pub fn columns(x: &Tensor, from: usize, count: usize) -> Result<Tensor> {
    let record = Record::new("columns", [x])?;
    let dtype = record.float([x])?;
    let Some((width, lines)) = x.shape().split_last() else {
        return Err(record.mismatch("(…, C) is needed"));
    };
    let shape: Vec<usize> = lines.iter().copied().chain([count]).collect();
    let y = record.result(&shape, dtype)?;
    let lines = lines.iter().product();
    copy_columns(&record, (x, *width, from), (&y, count, 0), (lines, count))?;
    Ok(y)
}

/// The channels of `a` (…, C) and then those of `b` (…, D): (…, C + D).
///
/// # Errors
/// When the shapes or types do not fit.
pub fn join_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let record = Record::new("join channels", [a, b])?;
    let dtype = record.float([a, b])?;
    let (Some((&first, lines)), Some((&second, others))) = (a.shape().split_last(), b.shape().split_last())
    else {
        return Err(record.mismatch("(…, C) and (…, D) are needed"));
    };
    record.ensure(lines == others, "(…, C) and (…, D) are needed")?;
    let width = first + second;
    let shape: Vec<usize> = lines.iter().copied().chain([width]).collect();
    let y = record.result(&shape, dtype)?;
    let lines = lines.iter().product();
    copy_columns(&record, (a, first, 0), (&y, width, 0), (lines, first))?;
    copy_columns(&record, (b, second, 0), (&y, width, first), (lines, second))?;
    Ok(y)
}

/// From and to: a tensor, the width of its lines, and the first column.
fn copy_columns(
    record: &Record<'_>,
    (x, x_width, from): (&Tensor, usize, usize),
    (y, y_width, to): (&Tensor, usize, usize),
    (lines, count): (usize, usize),
) -> Result<()> {
    record
        .launch("copy_columns", y.dtype())
        .tensor(x)
        .tensor(y)
        .long(lines)
        .int(x_width)
        .int(from)
        .int(y_width)
        .int(to)
        .int(count)
        .over(lines * count)
}

/// `x` (B, h, w, C) enlarged to (B, h', w', C), each pixel from its nearest neighbour as PyTorch's `interpolate` finds it.
///
/// # Errors
/// When `x` is no image with pixels.
pub fn upsample(x: &Tensor, (to_h, to_w): (usize, usize)) -> Result<Tensor> {
    let record = Record::new("upsample", [x])?;
    let dtype = record.float([x])?;
    let &[rows, h, w, channels] = x.shape() else {
        return Err(record.mismatch("(B, h, w, C) is needed"));
    };
    record.ensure(h > 0 && w > 0, "an image has pixels")?;
    let y = record.result(&[rows, to_h, to_w, channels], dtype)?;
    record
        .launch("upsample", dtype)
        .tensor(x)
        .tensor(&y)
        .long(y.elements())
        .int(h)
        .int(w)
        .int(to_h)
        .int(to_w)
        .int(channels)
        .over(y.elements())?;
    Ok(y)
}

/// The rows of all `parts`, one after the other along the outermost side.
///
/// # Errors
/// When there is none, or their shapes or types do not fit.
pub fn cat_rows(parts: &[&Tensor]) -> Result<Tensor> {
    let record = Record::new("cat rows", parts.iter().copied())?;
    let first = parts[0];
    let fit = parts.iter().all(|part| {
        part.dtype() == first.dtype()
            && !part.shape().is_empty()
            && part.shape().len() == first.shape().len()
            && part.shape()[1..] == first.shape()[1..]
    });
    record.ensure(fit, "parts of one type that differ in their rows only are needed")?;
    let mut shape = first.shape().to_vec();
    shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
    let y = record.result(&shape, first.dtype())?;
    let mut start = 0;
    for part in parts.iter().filter(|part| part.size_bytes() > 0) {
        let bytes = part.size_bytes();
        record.push(Command::Copy {
            from: part.span(),
            to: y.span().part(start, bytes),
        })?;
        start += bytes;
    }
    Ok(y)
}
