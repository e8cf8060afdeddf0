//! Group and layer norms, where their weights are.

use pentimento_gpu as gpu;

use crate::tensor::floats;
use crate::{Device, HostTensor, KernelError, Result, Tensor, norm};

/// A group norm with its weights on a device.
#[derive(Debug)]
pub struct GroupNorm(GroupForm);

#[derive(Debug)]
enum GroupForm {
    Cpu(norm::GroupNorm),
    Gpu(gpu::GroupNorm),
}

/// A norm for one tensor, followed by SiLU or not: on the CPU its statistics are known, on a GPU they are taken when it is
/// applied.
#[derive(Debug)]
pub struct Normalisation(NormalisationForm);

#[derive(Debug)]
enum NormalisationForm {
    Cpu(norm::Normalisation),
    Gpu { norm: gpu::GroupNorm, silu: bool },
}

/// A layer norm with its weights on a device.
#[derive(Debug)]
pub struct LayerNorm(LayerForm);

#[derive(Debug)]
enum LayerForm {
    Cpu(norm::LayerNorm),
    Gpu(gpu::LayerNorm),
}

impl GroupNorm {
    /// A norm of C = `weight`'s length channels in `groups` equal groups; `weight` and `bias` in main memory.
    ///
    /// # Errors
    /// When weight and bias differ in length or the groups do not divide it, or the device has no room.
    pub fn new(
        weight: &HostTensor,
        bias: &HostTensor,
        (groups, eps): (usize, f64),
        device: &Device,
    ) -> Result<Self> {
        match device {
            Device::Cpu | Device::CpuInBf16 => {
                let norm = norm::GroupNorm::new(weight, bias, groups, eps)?;
                Ok(Self(GroupForm::Cpu(norm)))
            }
            Device::Gpu(device) => {
                #[expect(clippy::cast_possible_truncation, reason = "as the kernel takes it")]
                let eps = eps as f32;
                let (weight, bias) = (floats(weight)?, floats(bias)?);
                let norm = gpu::GroupNorm::new(device.gpu(), &weight, &bias, groups, eps)?;
                Ok(Self(GroupForm::Gpu(norm)))
            }
        }
    }

    /// Bytes that weight and bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            GroupForm::Cpu(norm) => norm.size_bytes(),
            GroupForm::Gpu(norm) => norm.size_bytes(),
        }
    }

    /// The norm of `x` (B, …, C), to be applied by the layer that reads `x` next.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is elsewhere.
    pub fn normalisation(&self, x: &Tensor) -> Result<Normalisation> {
        match &self.0 {
            GroupForm::Cpu(norm) => {
                let made = norm.normalisation(x.host()?)?;
                Ok(Normalisation(NormalisationForm::Cpu(made)))
            }
            GroupForm::Gpu(norm) => Ok(Normalisation(NormalisationForm::Gpu {
                norm: norm.clone(),
                silu: false,
            })),
        }
    }
}

impl Normalisation {
    /// The same, followed by SiLU.
    #[must_use]
    pub fn with_silu(self) -> Self {
        Self(match self.0 {
            NormalisationForm::Cpu(norm) => NormalisationForm::Cpu(norm.with_silu()),
            NormalisationForm::Gpu { norm, .. } => NormalisationForm::Gpu { norm, silu: true },
        })
    }

    /// Applies it to `x`, the tensor that it was made from.
    ///
    /// # Errors
    /// When `x` has another shape.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            NormalisationForm::Cpu(norm) => Ok(Tensor::Host(norm.apply(x.host()?)?)),
            NormalisationForm::Gpu { .. } => self.apply_on_gpu(x.gpu()?).map(Tensor::Gpu),
        }
    }

    pub(super) fn apply_on_gpu(&self, x: &gpu::Tensor) -> Result<gpu::Tensor> {
        match &self.0 {
            NormalisationForm::Gpu { norm, silu } => Ok(norm.forward(x, *silu)?),
            NormalisationForm::Cpu(_) => Err(elsewhere()),
        }
    }

    pub(super) fn cpu(&self) -> Result<&norm::Normalisation> {
        match &self.0 {
            NormalisationForm::Cpu(norm) => Ok(norm),
            NormalisationForm::Gpu { .. } => Err(elsewhere()),
        }
    }
}

fn elsewhere() -> KernelError {
    KernelError::mismatch("a norm is on another device than what it is applied to")
}

impl LayerNorm {
    /// A norm over D = `weight`'s length numbers; `weight` and `bias` in main memory.
    ///
    /// # Errors
    /// When weight and bias differ in length, or the device has no room.
    pub fn new(weight: &HostTensor, bias: &HostTensor, eps: f32, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu | Device::CpuInBf16 => {
                Ok(Self(LayerForm::Cpu(norm::LayerNorm::new(weight, bias, eps)?)))
            }
            Device::Gpu(device) => {
                let (weight, bias) = (floats(weight)?, floats(bias)?);
                let norm = gpu::LayerNorm::new(device.gpu(), &weight, &bias, eps)?;
                Ok(Self(LayerForm::Gpu(norm)))
            }
        }
    }

    /// Bytes that weight and bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            LayerForm::Cpu(norm) => norm.size_bytes(),
            LayerForm::Gpu(norm) => norm.size_bytes(),
        }
    }

    /// `x`: (…, D). Result: the same shape.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is elsewhere.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            LayerForm::Cpu(norm) => Ok(Tensor::Host(norm.forward(x.host()?)?)),
            LayerForm::Gpu(norm) => Ok(Tensor::Gpu(norm.forward(x.gpu()?)?)),
        }
    }
}
