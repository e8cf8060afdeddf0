//! Tables that turn numbers of tokens or positions into vectors. They stay in main memory on every device: a prompt reads a
//! few of their rows once.

use candle_core::{DType, Result};

use crate::HostTensor;

/// A table of vectors, as the checkpoint stores it.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// (entries, D)
    table: HostTensor,
}

impl Embedding {
    /// `table`: (entries, D), of any floating type.
    #[must_use]
    pub const fn new(table: HostTensor) -> Self {
        Self { table }
    }

    /// Bytes that the table holds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.table.elem_count() * self.table.dtype().size_in_bytes()
    }

    /// The vectors of `ids` (B, T), u32: (B, T, D), f32.
    ///
    /// # Errors
    /// When an id is not in the table.
    pub fn forward(&self, ids: &HostTensor) -> Result<HostTensor> {
        let (b, t) = ids.dims2()?;
        let vectors = self.table.index_select(&ids.flatten_all()?, 0)?;
        vectors.to_dtype(DType::F32)?.reshape((b, t, ()))
    }

    /// As [`Embedding::forward`], where the ids behind the table's stand for the rows of `more` (V, D).
    ///
    /// # Errors
    /// When an id is in neither, or their widths differ.
    pub fn forward_with(&self, ids: &HostTensor, more: &HostTensor) -> Result<HostTensor> {
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
        HostTensor::stack(&rows, 0)?.reshape((b, t, ()))
    }

    /// The first `count` vectors: (count, D), f32.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn first(&self, count: usize) -> Result<HostTensor> {
        self.table.narrow(0, 0, count)?.to_dtype(DType::F32)
    }
}
