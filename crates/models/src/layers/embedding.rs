//! Tables that turn numbers of tokens or positions into vectors.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::patch::LayerPatch;
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// A table of vectors, as the checkpoint stores it.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    spec: LayerSpec,
    /// (entries, D)
    table: Tensor,
}

impl Embedding {
    /// `entries` vectors of `width` numbers.
    pub(crate) fn new(entries: usize, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = LayerShape {
            kind: LayerKind::Embedding,
            inputs: entries,
            outputs: width,
            bias: false,
        };
        let spec = LayerSpec::at(vb, shape);
        let table = spec.weight(vb)?;
        Ok(Self { spec, table })
    }

    /// The vectors of `ids` (B, T), u32: (B, T, D), f32.
    pub(crate) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let vectors = self.table.index_select(&ids.flatten_all()?, 0)?;
        vectors.to_dtype(DType::F32)?.reshape((b, t, ()))
    }

    /// As [`Embedding::forward`], where the ids behind the table's stand for the rows of `more` (V, D).
    pub(crate) fn forward_with(&self, ids: &Tensor, more: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let entries = self.table.dim(0)?;
        let rows = ids.flatten_all()?.to_vec1::<u32>()?.into_iter().map(|id| {
            let id = id as usize;
            match id.checked_sub(entries) {
                None => self.table.get(id),
                Some(row) if row < more.dim(0)? => more.get(row),
                Some(row) => candle_core::bail!("id {id} is row {row} of {:?}", more.dims()),
            }?
            .to_dtype(DType::F32)
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Tensor::stack(&rows, 0)?.reshape((b, t, ()))
    }

    /// The first `count` vectors: (count, D), f32.
    pub(crate) fn first(&self, count: usize) -> Result<Tensor> {
        self.table.narrow(0, 0, count)?.to_dtype(DType::F32)
    }
}

impl Layer for Embedding {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.table.elem_count() * self.table.dtype().size_in_bytes()
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        let (weight, _) = patch.weights()?;
        self.table = weight.reshape(self.spec.shape.weight_dims())?;
        Ok(self.size_bytes())
    }
}
