//! What the kernels are measured on: the layers of Stable Diffusion 1.5 for an image of 512x512.
//!
//! One list for `benches/kernels.rs` and `examples/roofline.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "a shape that does not fit is a mistake in this list"
)]

mod attention;
mod convolution;
mod layouts;
mod linear;
mod merging;
mod norms;

use std::hint::black_box;

use candle_core::{Device, Result, Tensor};

/// One kernel on one shape.
pub(crate) struct Case {
    pub(crate) kernel: &'static str,
    pub(crate) shape: String,
    pub(crate) work: Work,
    pub(crate) ours: Make,
    /// The same of numbers rounded to bfloat16, where that is offered.
    pub(crate) in_bf16: Option<Make>,
    /// The same computed by candle's own operations, where it has them.
    pub(crate) candle: Option<Make>,
}

/// How much there is to do. A multiplication and an addition are two operations; what is done to each result
/// (activation, softmax's exponential, the transforms of a convolution) and columns that fill up a panel do not count.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Operations by the definition.
    pub(crate) direct: usize,
    /// Operations by the algorithm that is used.
    pub(crate) done: usize,
    /// Operands read once, in the types in which they are kept, and the result written once.
    pub(crate) bytes: usize,
}

/// Makes the operands, which are large, and then something to call again and again.
pub(crate) type Make = Box<dyn Fn() -> Run>;
pub(crate) type Run = Box<dyn Fn()>;

/// All cases, one kernel after the other.
pub(crate) fn all() -> Vec<Case> {
    [
        linear::all(),
        convolution::all(),
        attention::all(),
        merging::all(),
        norms::all(),
        layouts::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run<T: 'static>(f: impl Fn() -> Result<T> + 'static) -> Run {
    Box::new(move || drop(black_box(f().unwrap())))
}

/// Bytes of `count` numbers of f32.
const fn f32s(count: usize) -> usize {
    count * size_of::<f32>()
}

/// Numbers of -1..1.
fn noise(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = 0x9E37_79B9_u32;
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}
