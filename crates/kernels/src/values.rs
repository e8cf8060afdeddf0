//! From candle's tensors to slices.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

/// The numbers of a contiguous f32 tensor in main memory, kept readable while this lives.
pub(crate) struct Values<G> {
    storage: G,
    start: usize,
    end: usize,
}

/// # Errors
/// When the tensor is not contiguous f32 on the CPU.
pub(crate) fn values(tensor: &Tensor) -> Result<Values<impl Deref<Target = Storage>>> {
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = range(layout)?;
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        candle_core::bail!(
            "the kernels take f32 on the CPU, this is {:?} on {:?}",
            tensor.dtype(),
            tensor.device().location()
        )
    }
    Ok(Values { storage, start, end })
}

impl<G: Deref<Target = Storage>> Values<G> {
    pub(crate) fn get(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            // Checked when it was made.
            Storage::Cpu(_) | Storage::Cuda(_) | Storage::Metal(_) => &[],
        }
    }
}

/// The numbers of a vector of any floating type, such as a bias.
pub(crate) fn to_f32s(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.to_vec1()
}

/// The slice of a contiguous f32 tensor inside a custom op.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = range(layout)?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn range(layout: &Layout) -> Result<(usize, usize)> {
    layout.contiguous_offsets().ok_or_else(|| {
        candle_core::Error::Msg(format!(
            "a kernel got a tensor of shape {:?} that is not contiguous",
            layout.dims()
        ))
    })
}
