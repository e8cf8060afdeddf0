//! What libraries compute, by plain loops: sums in f32, rounded once to the type of the result, and once more where a residual
//! is added after that.

use half::f16;

use super::heap::pointer;
use crate::command::{ConvCall, LinearCall, Span};
use crate::data::DType;

/// The result of a call, or why it is none.
type Done = Result<(), String>;

/// # Safety
/// The spans lie in allocated memory that nobody else uses now.
pub(super) unsafe fn linear(call: &LinearCall) -> Done {
    let LinearCall {
        dtype,
        lines,
        inputs,
        outputs,
        ..
    } = *call;
    // SAFETY: the caller's.
    let x = unsafe { read(call.x, dtype, lines * inputs)? };
    // SAFETY: the caller's.
    let weight = unsafe { read(call.weight, dtype, outputs * inputs)? };
    // SAFETY: the caller's.
    let bias = unsafe { read_or_zeros(call.bias, dtype, outputs)? };
    // SAFETY: the caller's.
    let residual = unsafe { read_or_zeros(call.residual, dtype, lines * outputs)? };
    let mut y = vec![0.0; lines * outputs];
    for line in 0..lines {
        let x = &x[line * inputs..][..inputs];
        for output in 0..outputs {
            let at = line * outputs + output;
            let product = dot(x, &weight[output * inputs..][..inputs]) + bias[output];
            // On a card the residual is another launch, which reads the product as it is stored.
            let stored = match dtype {
                DType::F16 => f16::from_f32(product).to_f32(),
                DType::F32 | DType::I32 | DType::Address => product,
            };
            y[at] = stored + residual[at];
        }
    }
    // SAFETY: the caller's.
    unsafe { write(call.y, dtype, &y) }
}

/// # Safety
/// As [`linear`].
pub(super) unsafe fn convolution(call: &ConvCall) -> Done {
    let ConvCall {
        dtype,
        rows,
        from: (h, w),
        to: (to_h, to_w),
        inputs,
        outputs,
        side,
        stride,
        before,
        ..
    } = *call;
    // SAFETY: the caller's.
    let x = unsafe { read(call.x, dtype, rows * h * w * inputs)? };
    // SAFETY: the caller's.
    let weight = unsafe { read(call.weight, dtype, outputs * side * side * inputs)? };
    // SAFETY: the caller's.
    let bias = unsafe { read_or_zeros(call.bias, dtype, outputs)? };
    let mut y = vec![0.0; rows * to_h * to_w * outputs];
    for (place, y) in y.chunks_exact_mut(outputs).enumerate() {
        let (row, line, column) = (place / (to_h * to_w), place / to_w % to_h, place % to_w);
        y.copy_from_slice(&bias);
        for tap in 0..side * side {
            let at = |place: usize, tap: usize, length: usize| {
                (place * stride + tap)
                    .checked_sub(before)
                    .filter(|at| *at < length)
            };
            let (Some(line), Some(column)) = (at(line, tap / side, h), at(column, tap % side, w)) else {
                continue;
            };
            let x = &x[((row * h + line) * w + column) * inputs..][..inputs];
            for (output, y) in y.iter_mut().enumerate() {
                *y += dot(x, &weight[(output * side * side + tap) * inputs..][..inputs]);
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { write(call.y, dtype, &y) }
}

/// Eight sums side by side, which a compiler can keep in one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// # Safety
/// The span lies in allocated memory.
unsafe fn read(span: Span, dtype: DType, count: usize) -> Result<Vec<f32>, String> {
    fits(span, dtype, count)?;
    let from = pointer(span);
    match dtype {
        DType::F32 => {
            // SAFETY: so many floats lie there, and every block begins at a multiple of their size.
            let numbers = unsafe { std::slice::from_raw_parts(from.cast::<f32>(), count) };
            Ok(numbers.to_vec())
        }
        DType::F16 => {
            // SAFETY: so many halves lie there, and every block begins at a multiple of their size.
            let numbers = unsafe { std::slice::from_raw_parts(from.cast::<f16>(), count) };
            Ok(numbers.iter().map(|number| number.to_f32()).collect())
        }
        DType::I32 | DType::Address => Err("libraries are given floats".to_owned()),
    }
}

/// # Safety
/// The span, if there is one, lies in allocated memory.
unsafe fn read_or_zeros(span: Option<Span>, dtype: DType, count: usize) -> Result<Vec<f32>, String> {
    match span {
        None => Ok(vec![0.0; count]),
        // SAFETY: the caller's.
        Some(span) => unsafe { read(span, dtype, count) },
    }
}

/// # Safety
/// The span lies in allocated memory that nobody reads now.
unsafe fn write(span: Span, dtype: DType, numbers: &[f32]) -> Done {
    fits(span, dtype, numbers.len())?;
    let to = pointer(span);
    match dtype {
        DType::F32 => {
            // SAFETY: there is room for so many floats.
            unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr(), to.cast::<f32>(), numbers.len()) };
        }
        DType::F16 => {
            let halves: Vec<f16> = numbers.iter().map(|number| f16::from_f32(*number)).collect();
            // SAFETY: there is room for so many halves.
            unsafe { std::ptr::copy_nonoverlapping(halves.as_ptr(), to.cast::<f16>(), halves.len()) };
        }
        DType::I32 | DType::Address => return Err("libraries give floats".to_owned()),
    }
    Ok(())
}

fn fits(span: Span, dtype: DType, count: usize) -> Done {
    if span.bytes == count * dtype.size_bytes() {
        Ok(())
    } else {
        Err(format!("{count} numbers in {span:?}"))
    }
}
