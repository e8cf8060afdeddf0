//! Linear layers, where their weights are.

use pentimento_gpu as gpu;

use super::branch::Branch;
use super::weights::Weights;
use crate::device::{GpuDevice, Precision};
use crate::matrix::{self, Activation};
use crate::{Device, HostTensor, KernelError, Result, Tensor};

/// A linear layer with its weights on a device.
#[derive(Debug)]
pub struct Linear(Form);

#[derive(Debug)]
enum Form {
    Cpu(matrix::Linear),
    Gpu(GpuLinear),
}

#[derive(Debug)]
struct GpuLinear {
    device: GpuDevice,
    layer: gpu::Linear,
    gated: bool,
}

impl Linear {
    /// A layer of `weight` (outputs, inputs) in f32, f16 or bf16 and `bias` (outputs,), both in main memory.
    ///
    /// # Errors
    /// When the shapes do not fit each other, or the device has no room.
    pub fn new(weight: &HostTensor, bias: Option<&HostTensor>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self(Form::Cpu(matrix::Linear::new(weight, bias)?))),
            Device::CpuInBf16 => Ok(Self(Form::Cpu(matrix::Linear::in_bf16(weight, bias, false)?))),
            Device::Gpu(device) => {
                let layer = GpuLinear::new(weight, bias, device, false)?;
                Ok(Self(Form::Gpu(layer)))
            }
        }
    }

    /// GEGLU (Shazeer, 2020): the first half of `weight`'s rows times the GELU of the second half's.
    ///
    /// # Errors
    /// As [`Linear::new`], and when the number of rows is not even.
    pub fn geglu(weight: &HostTensor, bias: Option<&HostTensor>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self(Form::Cpu(matrix::Linear::geglu(weight, bias)?))),
            Device::CpuInBf16 => Ok(Self(Form::Cpu(matrix::Linear::in_bf16(weight, bias, true)?))),
            Device::Gpu(device) => {
                let (rows, _) = weight.dims2()?;
                if rows % 2 != 0 {
                    let detail = format!("the two halves of GEGLU have {rows} rows together");
                    return Err(KernelError::mismatch(detail));
                }
                let layer = GpuLinear::new(weight, bias, device, true)?;
                Ok(Self(Form::Gpu(layer)))
            }
        }
    }

    /// The numbers in which it computes.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match &self.0 {
            Form::Cpu(layer) if layer.is_bf16() => Precision::Bf16,
            Form::Cpu(_) => Precision::F32,
            Form::Gpu(layer) => Device::Gpu(layer.device.clone()).precision(),
        }
    }

    /// A branch beside this layer, on its device: `down` (rank, inputs) and `up` (outputs, rank), of as many outputs as the
    /// layer's weight has rows, both in main memory. Any factor is part of one of the two.
    ///
    /// # Errors
    /// When the shapes do not fit each other or this layer, or the device has no room.
    pub fn branch(&self, down: &HostTensor, up: &HostTensor) -> Result<Branch> {
        match &self.0 {
            Form::Cpu(layer) => Ok(Branch::on_cpu(layer.branch(down, up)?)),
            Form::Gpu(layer) => Branch::on_gpu(&layer.device, layer.layer.sides(), (down, up)),
        }
    }

    /// Bytes that the weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Form::Cpu(layer) => layer.size_bytes(),
            Form::Gpu(layer) => layer.layer.size_bytes(),
        }
    }

    /// `x`: (images, …, inputs); `residual`: as many numbers as the result, added after the activation. Result:
    /// (images, …, outputs).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is elsewhere.
    pub fn forward(&self, x: &Tensor, activation: Activation, residual: Option<&Tensor>) -> Result<Tensor> {
        self.forward_beside(x, None, activation, residual)
    }

    /// As [`Linear::forward`], with the result of `branch` added before the activation. A row's bits do not depend on the
    /// other rows.
    ///
    /// # Errors
    /// As [`Linear::forward`], and when the branch was made for a layer of another shape.
    pub fn forward_beside(
        &self,
        x: &Tensor,
        branch: Option<&Branch>,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        match &self.0 {
            Form::Cpu(layer) => {
                let branch = branch.map(Branch::cpu).transpose()?;
                let residual = residual.map(Tensor::host).transpose()?;
                let y = layer.forward_beside(x.host()?, branch, activation, residual)?;
                Ok(Tensor::Host(y))
            }
            Form::Gpu(layer) => {
                let residual = residual.map(Tensor::gpu).transpose()?;
                let y = layer.forward(x.gpu()?, branch, activation, residual)?;
                Ok(Tensor::Gpu(y))
            }
        }
    }
}

impl GpuLinear {
    fn new(weight: &HostTensor, bias: Option<&HostTensor>, device: &GpuDevice, gated: bool) -> Result<Self> {
        let sides = weight.dims2()?;
        Ok(Self {
            device: device.clone(),
            layer: matrix_on(device, sides, weight, bias)?,
            gated,
        })
    }

    fn forward(
        &self,
        x: &gpu::Tensor,
        branch: Option<&Branch>,
        activation: Activation,
        residual: Option<&gpu::Tensor>,
    ) -> Result<gpu::Tensor> {
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            let (_, rows) = self.layer.sides();
            *last = if self.gated { rows / 2 } else { rows };
        }
        let residual = residual.map(|residual| residual.reshape(&shape)).transpose()?;
        // What nothing is done to before the residual is added takes it along.
        let is_plain = activation == Activation::None && !self.gated && branch.is_none();
        if is_plain {
            return Ok(self.layer.forward(x, residual.as_ref())?);
        }
        let mut y = self.layer.forward(x, None)?;
        if let Some(branch) = branch {
            y = branch.add_on_gpu(x, y)?;
        }
        if self.gated {
            y = gpu::geglu(&y)?;
        }
        let function = match activation {
            Activation::None => None,
            Activation::Silu => Some(gpu::Activation::Silu),
            Activation::QuickGelu => Some(gpu::Activation::QuickGelu),
            Activation::Gelu => Some(gpu::Activation::Gelu),
        };
        if let Some(function) = function {
            y = gpu::activate(&y, function)?;
        }
        match residual {
            Some(residual) => Ok(gpu::add(&y, &residual)?),
            None => Ok(y),
        }
    }
}

fn matrix_on(
    device: &GpuDevice,
    sides: (usize, usize),
    weight: &HostTensor,
    bias: Option<&HostTensor>,
) -> Result<gpu::Linear> {
    let (weight, bias) = (Weights::of(weight)?, Weights::of_some(bias)?);
    let bias = bias.as_ref().map(Weights::data);
    let layer = gpu::Linear::new(device.gpu(), sides, weight.data(), bias, device.dtype())?;
    Ok(layer)
}
