//! Weights of main memory as a GPU's layers take them.

use half::f16;
use pentimento_gpu::HostData;

use candle_core::DType;

use crate::tensor::floats;
use crate::{HostTensor, Result};

/// The numbers of a weight: halves as they are stored, everything else as f32.
pub(super) enum Weights {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Weights {
    pub(super) fn of(stored: &HostTensor) -> Result<Self> {
        if stored.dtype() == DType::F16 {
            return Ok(Self::F16(stored.flatten_all()?.to_vec1()?));
        }
        floats(stored).map(Self::F32)
    }

    pub(super) fn of_some(stored: Option<&HostTensor>) -> Result<Option<Self>> {
        stored.map(Self::of).transpose()
    }

    pub(super) fn data(&self) -> HostData<'_> {
        match self {
            Self::F32(numbers) => HostData::F32(numbers),
            Self::F16(numbers) => HostData::F16(numbers),
        }
    }
}
