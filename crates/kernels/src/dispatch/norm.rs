//! Group and layer norms, where their weights are.

use crate::{Device, HostTensor, Result, Tensor, norm};

/// A group norm with its weights on a device.
#[derive(Debug)]
pub struct GroupNorm(GroupForm);

#[derive(Debug)]
enum GroupForm {
    Cpu(norm::GroupNorm),
}

/// A norm of one tensor, whose statistics are known: y = x · scale + shift for each channel, followed by SiLU or not.
#[derive(Debug)]
pub struct Normalisation(NormalisationForm);

#[derive(Debug)]
enum NormalisationForm {
    Cpu(norm::Normalisation),
}

/// A layer norm with its weights on a device.
#[derive(Debug)]
pub struct LayerNorm(LayerForm);

#[derive(Debug)]
enum LayerForm {
    Cpu(norm::LayerNorm),
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
            Device::Cpu => Ok(Self(GroupForm::Cpu(norm::GroupNorm::new(
                weight, bias, groups, eps,
            )?))),
        }
    }

    /// Bytes that weight and bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            GroupForm::Cpu(norm) => norm.size_bytes(),
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
        }
    }
}

impl Normalisation {
    /// The same, followed by SiLU.
    #[must_use]
    pub fn with_silu(self) -> Self {
        match self.0 {
            NormalisationForm::Cpu(norm) => Self(NormalisationForm::Cpu(norm.with_silu())),
        }
    }

    /// Applies it to `x`, the tensor that it was made from.
    ///
    /// # Errors
    /// When `x` has another shape.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            NormalisationForm::Cpu(norm) => Ok(Tensor::Host(norm.apply(x.host()?)?)),
        }
    }

    pub(super) fn cpu(&self) -> Result<&norm::Normalisation> {
        match &self.0 {
            NormalisationForm::Cpu(norm) => Ok(norm),
        }
    }
}

impl LayerNorm {
    /// A norm over D = `weight`'s length numbers; `weight` and `bias` in main memory.
    ///
    /// # Errors
    /// When weight and bias differ in length, or the device has no room.
    pub fn new(weight: &HostTensor, bias: &HostTensor, eps: f32, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self(LayerForm::Cpu(norm::LayerNorm::new(weight, bias, eps)?))),
        }
    }

    /// Bytes that weight and bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            LayerForm::Cpu(norm) => norm.size_bytes(),
        }
    }

    /// `x`: (…, D). Result: the same shape.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is elsewhere.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            LayerForm::Cpu(norm) => Ok(Tensor::Host(norm.forward(x.host()?)?)),
        }
    }
}
