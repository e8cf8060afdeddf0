//! Tables that turn numbers of tokens or positions into vectors.

use pentimento_kernels::{self as kernels, HostTensor, LayerSource, Result};

use super::patch::LayerPatch;
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// A table of vectors, as the checkpoint stores it, in main memory on every device.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    spec: LayerSpec,
    table: kernels::Embedding,
}

impl Embedding {
    /// `entries` vectors of `width` numbers.
    pub(crate) fn new(entries: usize, width: usize, from: &LayerSource<'_>) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Embedding,
            inputs: entries,
            outputs: width,
            bias: false,
        };
        let spec = LayerSpec::at(from, shape);
        let table = kernels::Embedding::new(spec.weight(from)?);
        Ok(Self { spec, table })
    }

    /// The vectors of `ids` (B, T), u32: (B, T, D), f32.
    pub(crate) fn forward(&self, ids: &HostTensor) -> Result<HostTensor> {
        Ok(self.table.forward(ids)?)
    }

    /// As [`Embedding::forward`], where the ids behind the table's stand for the rows of `more` (V, D).
    pub(crate) fn forward_with(&self, ids: &HostTensor, more: &HostTensor) -> Result<HostTensor> {
        Ok(self.table.forward_with(ids, more)?)
    }

    /// The first `count` vectors: (count, D), f32.
    pub(crate) fn first(&self, count: usize) -> Result<HostTensor> {
        Ok(self.table.first(count)?)
    }
}

impl Layer for Embedding {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.table.size_bytes()
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        let (weight, _) = patch.weights()?;
        self.table = kernels::Embedding::new(weight.reshape(self.spec.shape.weight_dims())?);
        Ok(self.size_bytes())
    }
}
