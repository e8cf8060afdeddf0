//! Where a layer comes from: the tensors of a checkpoint at one path, and the device that it is to compute on.

use std::collections::HashMap;
use std::fmt;

use candle_core::{DType, Device as HostDevice};
use candle_nn::VarBuilder;

use crate::{Device, HostTensor, Result};

/// The tensors of a checkpoint below one path, and the device for layers that are made of them. Cheap to clone.
#[derive(Clone)]
pub struct LayerSource<'a> {
    tensors: VarBuilder<'a>,
    device: Device,
}

impl<'a> LayerSource<'a> {
    /// `tensors`, in main memory, for layers on `device`.
    #[must_use]
    pub fn new(tensors: VarBuilder<'a>, device: &Device) -> Self {
        Self {
            tensors,
            device: device.clone(),
        }
    }

    /// As [`LayerSource::new`], of tensors by their full names, all of them as f32.
    #[must_use]
    pub fn from_tensors(tensors: HashMap<String, HostTensor>, device: &Device) -> Self {
        let tensors = VarBuilder::from_tensors(tensors, DType::F32, &HostDevice::Cpu);
        Self::new(tensors, device)
    }

    /// The same with every name passed through `rename` before it is looked for.
    #[must_use]
    pub fn rename_f(self, rename: impl Fn(&str) -> String + Sync + Send + 'static) -> Self {
        Self {
            tensors: self.tensors.rename_f(rename),
            ..self
        }
    }

    /// One step down the path, as PyTorch's modules and candle's builder name it.
    #[must_use]
    pub fn pp(&self, name: impl fmt::Display) -> Self {
        Self {
            tensors: self.tensors.pp(name),
            device: self.device.clone(),
        }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> String {
        self.tensors.prefix()
    }

    /// The tensor `name` at this path, as it is stored.
    ///
    /// # Errors
    /// When there is none, or it has another shape.
    pub fn get(&self, dims: &[usize], name: &str) -> Result<HostTensor> {
        Ok(self.tensors.get(dims, name)?)
    }

    /// Where the layers are to compute.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }
}

impl fmt::Debug for LayerSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerSource")
            .field("path", &self.path())
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
