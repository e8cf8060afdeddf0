//! What a layer is called in its checkpoint, which tensors it has there, and how they are read.

use std::fmt;
use std::sync::Arc;

use pentimento_kernels::{Device, HostTensor, LayerSource, Result};

use super::patch::{Beside, LayerPatch};
use crate::ModelError;
use crate::error::During;

/// A layer's path in its checkpoint, such as `mid_block.attentions.0.transformer_blocks.0.attn1.to_q`, whatever older
/// name the file has for it. It does not depend on how the layer is computed. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerName(Arc<str>);

impl LayerName {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a layer computes, as far as its weight shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// A matrix, (outputs, inputs).
    Linear,
    /// A 1x1 convolution, (outputs, inputs, 1, 1).
    Pointwise,
    /// A 3x3 convolution, (outputs, inputs, 3, 3).
    Conv2d,
    /// A convolution over squares of `side` pixels that do not overlap, (outputs, inputs, side, side).
    Patches {
        /// Pixels of a square's side.
        side: usize,
    },
    /// A group or layer norm, a scale for each of as many outputs as inputs.
    Norm,
    /// A table of `inputs` entries, (inputs, outputs).
    Embedding,
}

/// Sizes of a layer as the checkpoint has it: channels of a convolution, widths of tokens elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerShape {
    /// What it computes.
    pub kind: LayerKind,
    /// What comes in.
    pub inputs: usize,
    /// What goes out.
    pub outputs: usize,
    /// Whether it adds a bias of as many numbers as outputs.
    pub bias: bool,
}

impl LayerShape {
    /// The shape of the tensor `weight`.
    #[must_use]
    pub fn weight_dims(&self) -> Vec<usize> {
        match self.kind {
            LayerKind::Linear => vec![self.outputs, self.inputs],
            LayerKind::Pointwise => vec![self.outputs, self.inputs, 1, 1],
            LayerKind::Conv2d => vec![self.outputs, self.inputs, 3, 3],
            LayerKind::Patches { side } => vec![self.outputs, self.inputs, side, side],
            LayerKind::Norm => vec![self.outputs],
            LayerKind::Embedding => vec![self.inputs, self.outputs],
        }
    }
}

/// A layer of the checkpoint: name and shape, and where it computes.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpec {
    pub(crate) name: LayerName,
    pub(crate) shape: LayerShape,
    pub(super) device: Device,
}

impl LayerSpec {
    /// The layer of this shape that `from` has at its path.
    pub(super) fn at(from: &LayerSource<'_>, shape: LayerShape) -> Self {
        Self {
            name: LayerName(from.path().into()),
            shape,
            device: from.device().clone(),
        }
    }

    /// Its weight as stored. Every weight of every network comes through here, with its name and not yet packed.
    pub(super) fn weight(&self, from: &LayerSource<'_>) -> Result<HostTensor> {
        from.get(&self.shape.weight_dims(), "weight")
    }

    /// Its bias as stored.
    pub(super) fn bias(&self, from: &LayerSource<'_>) -> Result<HostTensor> {
        from.get(&[self.shape.outputs], "bias")
    }
}

/// A layer with its weights packed. Copies share them.
pub(crate) trait Layer {
    /// The layers of the checkpoint that it computes: one, or all that are folded into it.
    fn specs(&self) -> &[LayerSpec];

    /// Bytes that its weights hold.
    fn size_bytes(&self) -> usize;

    /// What is beside it, of a matrix layer.
    fn beside(&mut self) -> Option<&mut Beside> {
        None
    }

    /// Changes this copy alone, and says how many bytes the change holds. A layer is changed at most once.
    fn patch(&mut self, patch: LayerPatch) -> Result<usize>;
}

/// Calls `visit` for every layer of the checkpoint among the packed layers that `walk` goes through.
pub(crate) fn each_spec(
    walk: impl FnOnce(&mut dyn FnMut(&dyn Layer)),
    visit: &mut dyn FnMut(&LayerName, LayerShape),
) {
    walk(&mut |layer| {
        for spec in layer.specs() {
            visit(&spec.name, spec.shape);
        }
    });
}

/// Bytes of all packed layers that `walk` goes through.
pub(crate) fn size_bytes(walk: impl FnOnce(&mut dyn FnMut(&dyn Layer))) -> u64 {
    let mut sum = 0;
    walk(&mut |layer| sum += layer.size_bytes() as u64);
    sum
}

/// What becomes of a layer; None leaves it as it is.
pub type PatchOf<'a, E> =
    dyn FnMut(&LayerName, LayerShape) -> std::result::Result<Option<LayerPatch>, E> + 'a;

/// Changes the layers that `walk` goes through as `change` says: None leaves one as it is. Result: the bytes that the
/// changes hold.
///
/// Goes layer by layer, so that the numbers of a single one are in memory twice.
pub(crate) fn patch_each<E: From<ModelError>>(
    walk: impl FnOnce(&mut dyn FnMut(&mut dyn Layer)),
    change: &mut PatchOf<'_, E>,
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
    change: &mut PatchOf<'_, E>,
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
