//! Linear layers, where their weights are.

use crate::matrix::{self, Activation};
use crate::{Device, HostTensor, Result, Tensor};

/// A linear layer with its weights on a device.
#[derive(Debug)]
pub struct Linear(Form);

#[derive(Debug)]
enum Form {
    Cpu(matrix::Linear),
}

/// A low-rank change of a layer that keeps the layer's own weights as they are: y = activation(W x + b + U D x).
#[derive(Debug)]
pub struct Branch(BranchForm);

#[derive(Debug)]
enum BranchForm {
    Cpu(matrix::Branch),
}

impl Linear {
    /// A layer of `weight` (outputs, inputs) in f32, f16 or bf16 and `bias` (outputs,), both in main memory.
    ///
    /// # Errors
    /// When the shapes do not fit each other, or the device has no room.
    pub fn new(weight: &HostTensor, bias: Option<&HostTensor>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self(Form::Cpu(matrix::Linear::new(weight, bias)?))),
        }
    }

    /// GEGLU (Shazeer, 2020): the first half of `weight`'s rows times the GELU of the second half's.
    ///
    /// # Errors
    /// As [`Linear::new`], and when the number of rows is not even.
    pub fn geglu(weight: &HostTensor, bias: Option<&HostTensor>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self(Form::Cpu(matrix::Linear::geglu(weight, bias)?))),
        }
    }

    /// A branch beside this layer, on its device: `down` (rank, inputs) and `up` (outputs, rank), of as many outputs as the
    /// layer's weight has rows, both in main memory. Any factor is part of one of the two.
    ///
    /// # Errors
    /// When the shapes do not fit each other or this layer, or the device has no room.
    pub fn branch(&self, down: &HostTensor, up: &HostTensor) -> Result<Branch> {
        match &self.0 {
            Form::Cpu(layer) => Ok(Branch(BranchForm::Cpu(layer.branch(down, up)?))),
        }
    }

    /// Bytes that the weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Form::Cpu(layer) => layer.size_bytes(),
        }
    }

    /// `x`: (…, inputs); `residual`: as many numbers as the result, added after the activation. Result: (…, outputs).
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
        }
    }
}

impl Branch {
    /// Bytes that its weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            BranchForm::Cpu(branch) => branch.size_bytes(),
        }
    }

    fn cpu(&self) -> Result<&matrix::Branch> {
        match &self.0 {
            BranchForm::Cpu(branch) => Ok(branch),
        }
    }
}
