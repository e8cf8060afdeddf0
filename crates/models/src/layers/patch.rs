//! Copies of a network in which some layers are others: what LoRAs make of it. What is not changed is shared.

use candle_core::{Result, Tensor};

use super::spec::{Layer, LayerName, LayerShape};
use crate::ModelError;
use crate::error::During;

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

/// Changes the layers that `walk` goes through as `change` says: None leaves one as it is. Result: the bytes that the
/// changes hold.
///
/// Goes layer by layer, so that the numbers of a single one are in memory twice.
pub(crate) fn patch_each<E: From<ModelError>>(
    walk: impl FnOnce(&mut dyn FnMut(&mut dyn Layer)),
    change: &mut dyn FnMut(&LayerName, LayerShape) -> std::result::Result<Option<LayerPatch>, E>,
) -> std::result::Result<u64, E> {
    let mut held = Ok(0_u64);
    walk(&mut |layer| {
        let Ok(sum) = &mut held else { return };
        match patch(layer, change) {
            Ok(bytes) => *sum += bytes,
            Err(error) => held = Err(error),
        }
    });
    held
}

fn patch<E: From<ModelError>>(
    layer: &mut dyn Layer,
    change: &mut dyn FnMut(&LayerName, LayerShape) -> std::result::Result<Option<LayerPatch>, E>,
) -> std::result::Result<u64, E> {
    let [spec] = layer.specs() else {
        // Several layers folded into one: no network that is changed has them.
        return Ok(0);
    };
    match change(&spec.name, spec.shape)? {
        Some(patch) => Ok(layer.patch(patch).during("changing a layer")? as u64),
        None => Ok(0),
    }
}
