//! A conditioning as the UNet needs it: what is the same at every evaluation, which are the keys and values that it attends
//! to and what SDXL adds to the embedding of the timestep.

use std::sync::Arc;

use crate::ConditioningShape;
use crate::layers::{Attention, KernelError, KeyValues, Result, Tensor};

/// A [`Conditioning`](crate::Conditioning) turned into what every evaluation of one network needs, by
/// [`UNet::prepare`](super::UNet::prepare). Cheap to clone.
#[derive(Clone, Debug)]
pub struct PreparedConditioning {
    kv: Arc<CrossAttnKv>,
    /// (1, 1, width); of networks that take a pooled state and size conditions.
    added: Option<Tensor>,
    shape: ConditioningShape,
}

impl PreparedConditioning {
    pub(super) fn new(kv: CrossAttnKv, added: Option<Tensor>, shape: ConditioningShape) -> Self {
        Self {
            kv: Arc::new(kv),
            added,
            shape,
        }
    }

    /// The shape of the conditioning.
    #[must_use]
    pub const fn shape(&self) -> ConditioningShape {
        self.shape
    }

    /// Bytes that it holds, whatever number of clones there are.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let kv: u64 = self.kv.layers.iter().map(KeyValues::size_bytes).sum();
        kv + self.added.as_ref().map_or(0, Tensor::size_bytes)
    }

    /// How many cross-attentions the network has that it was made for.
    pub(super) fn layers(&self) -> usize {
        self.kv.layers.len()
    }
}

/// The keys and values of one row for every cross-attention, in the order in which those run.
#[derive(Debug)]
pub(super) struct CrossAttnKv {
    layers: Vec<KeyValues>,
}

impl CrossAttnKv {
    /// Those of `tokens` (1, S, D).
    pub(super) fn project<'a>(
        cross_attns: impl Iterator<Item = &'a Attention>,
        tokens: &Tensor,
    ) -> Result<Self> {
        Ok(Self {
            layers: cross_attns
                .map(|cross_attn| cross_attn.project_kv(tokens))
                .collect::<Result<_>>()?,
        })
    }
}

/// What each of `rows` adds to the embedding of its timestep, (B, 1, width).
pub(super) fn added_of_rows(rows: &[PreparedConditioning]) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(added) = &row.added else {
            return Err(KernelError::mismatch("the conditioning has no pooled state"));
        };
        parts.push(added);
    }
    Tensor::cat_rows(&parts)
}

/// Keys and values of `rows` for cross-attention number `layer`, (B, S, width) each.
pub(super) fn kv_of_rows(rows: &[PreparedConditioning], layer: usize) -> Result<KeyValues> {
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(kv) = row.kv.layers.get(layer) else {
            let layers = row.layers();
            let detail = format!("the conditioning is that of a network of {layers} layers");
            return Err(KernelError::mismatch(detail));
        };
        parts.push(kv);
    }
    KeyValues::cat(&parts)
}
