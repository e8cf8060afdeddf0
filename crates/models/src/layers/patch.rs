//! What LoRAs make of one layer of a copy of a network; what is not changed is shared.

use candle_core::{Result, Tensor};

/// What becomes of one layer. Tensors are f32, on the layer's device.
#[derive(Clone, Debug)]
pub enum LayerPatch {
    /// A matrix layer keeps its weights, and the result of a low-rank product is added to its own before anything else
    /// is done with it: W x + b + up (down x).
    Branch {
        /// (rank, inputs)
        down: Tensor,
        /// (outputs, rank), with every factor in it.
        up: Tensor,
    },
    /// The layer has other weights.
    Weights {
        /// In the shape that the checkpoint has it in.
        weight: Tensor,
        /// (outputs,), where the layer has one.
        bias: Option<Tensor>,
    },
}

impl LayerPatch {
    /// The weights, for a layer that takes nothing else.
    pub(super) fn weights(self) -> Result<(Tensor, Option<Tensor>)> {
        match self {
            Self::Weights { weight, bias } => Ok((weight, bias)),
            Self::Branch { .. } => candle_core::bail!("a branch beside a layer that is no matrix"),
        }
    }
}

/// A bias that a layer always has.
pub(super) fn needed(bias: Option<Tensor>) -> Result<Tensor> {
    bias.map_or_else(|| candle_core::bail!("a layer is left without its bias"), Ok)
}
