//! What is done to images beside convolutions and norms: the order of their axes, joining channels, ReLU.

use pentimento_gpu as gpu;

use crate::{Result, Tensor, layout, relu as cpu};

/// (B, C, h, w) to (B, h, w, C).
///
/// # Errors
/// When `x` has another rank.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    match x {
        Tensor::Host(x) => Ok(Tensor::Host(layout::channels_last(x)?)),
        Tensor::Gpu(x) => Ok(Tensor::Gpu(gpu::channels_last(x)?)),
    }
}

/// (B, h, w, C) to (B, C, h, w).
///
/// # Errors
/// When `x` has another rank.
pub fn channels_first(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    match x {
        Tensor::Host(x) => Ok(Tensor::Host(layout::channels_first(x)?)),
        Tensor::Gpu(x) => Ok(Tensor::Gpu(gpu::channels_first(x)?)),
    }
}

/// (…, C1) and (…, C2) to (…, C1 + C2).
///
/// # Errors
/// When the other axes or the places differ.
pub fn join_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a {
        Tensor::Host(a) => Ok(Tensor::Host(layout::join_channels(a, b.host()?)?)),
        Tensor::Gpu(a) => Ok(Tensor::Gpu(gpu::join_channels(a, b.gpu()?)?)),
    }
}

/// max(x, 0) of each number. Takes the tensor because its numbers may be overwritten: nobody else may hold them.
///
/// # Errors
/// When `x` is a view with gaps.
pub fn relu(x: Tensor) -> Result<Tensor> {
    match x {
        Tensor::Host(x) => Ok(Tensor::Host(cpu::relu(x)?)),
        Tensor::Gpu(x) => Ok(Tensor::Gpu(gpu::activate(&x, gpu::Activation::Relu)?)),
    }
}
