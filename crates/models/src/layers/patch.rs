//! What LoRAs make of one layer of a copy of a network; what is not changed is shared.

use std::sync::Arc;

use pentimento_kernels::{Branch, HostTensor, KernelError, Result};

/// What is beside a matrix layer, and shared by its copies.
pub(crate) type Beside = Option<Arc<Branch>>;

/// What becomes of one layer. Tensors are f32, in main memory.
#[derive(Clone, Debug)]
pub enum LayerPatch {
    /// A matrix layer keeps its weights, and the result of a low-rank product is added to its own before anything else
    /// is done with it: W x + b + up (down x).
    Branch {
        /// (rank, inputs)
        down: HostTensor,
        /// (outputs, rank), with every factor in it.
        up: HostTensor,
    },
    /// The layer has other weights.
    Weights {
        /// In the shape that the checkpoint has it in.
        weight: HostTensor,
        /// (outputs,), where the layer has one.
        bias: Option<HostTensor>,
    },
}

impl LayerPatch {
    /// The weights, for a layer that takes nothing else.
    pub(super) fn weights(self) -> Result<(HostTensor, Option<HostTensor>)> {
        match self {
            Self::Weights { weight, bias } => Ok((weight, bias)),
            Self::Branch { .. } => Err(KernelError::mismatch("a branch beside a layer that is no matrix")),
        }
    }
}

/// A bias that a layer always has.
pub(super) fn needed(bias: Option<HostTensor>) -> Result<HostTensor> {
    bias.ok_or_else(|| KernelError::mismatch("a layer is left without its bias"))
}
