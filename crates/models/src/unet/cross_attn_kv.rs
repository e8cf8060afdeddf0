//! A conditioning as the UNet needs it: what is the same at every evaluation, which are the keys and values that it attends
//! to and what SDXL adds to the embedding of the timestep.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::ConditioningShape;
use crate::layers::{Attention, KeyValues, MoreKeyValues};

/// A [`Conditioning`](crate::Conditioning) turned into what every evaluation of one network needs, by
/// [`UNet::prepare`](super::UNet::prepare). Cheap to clone.
#[derive(Clone, Debug)]
pub struct PreparedConditioning {
    kv: Arc<CrossAttnKv>,
    /// Of the image tokens, with their scale in the values; None where there are none, or nothing would be seen of them.
    image: Option<Arc<CrossAttnKv>>,
    /// (1, 1, width); of networks that take a pooled state and size conditions.
    added: Option<Tensor>,
    shape: ConditioningShape,
}

impl PreparedConditioning {
    pub(super) fn new(kv: CrossAttnKv, added: Option<Tensor>, shape: ConditioningShape) -> Self {
        Self {
            kv: Arc::new(kv),
            image: None,
            added,
            shape,
        }
    }

    /// The same with what an IP-Adapter makes of its image tokens.
    pub(super) fn with_image(self, image: Option<CrossAttnKv>) -> Self {
        Self {
            image: image.map(Arc::new),
            ..self
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
        let image = self.image.iter().flat_map(|image| &image.layers);
        let kv = self.kv.layers.iter().chain(image);
        let kv: u64 = kv.map(KeyValues::size_bytes).sum();
        let added = self
            .added
            .as_ref()
            .map_or(0, |added| added.elem_count() * added.dtype().size_in_bytes());
        kv + added as u64
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

impl From<Vec<KeyValues>> for CrossAttnKv {
    fn from(layers: Vec<KeyValues>) -> Self {
        Self { layers }
    }
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

    fn of_layer(&self, layer: usize) -> Result<&KeyValues> {
        match self.layers.get(layer) {
            Some(kv) => Ok(kv),
            None => candle_core::bail!(
                "the conditioning is that of a network of {} layers",
                self.layers.len()
            ),
        }
    }
}

/// What each of `rows` adds to the embedding of its timestep, (B, 1, width).
pub(super) fn added_of_rows(rows: &[PreparedConditioning]) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(added) = &row.added else {
            candle_core::bail!("the conditioning has no pooled state")
        };
        parts.push(added);
    }
    Tensor::cat(&parts, 0)
}

/// Keys and values of `rows` for cross-attention number `layer`, (B, S, width) each.
pub(super) fn kv_of_rows(rows: &[PreparedConditioning], layer: usize) -> Result<KeyValues> {
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        parts.push(row.kv.of_layer(layer)?);
    }
    KeyValues::cat(&parts)
}

/// What `rows` attend to beside their text in cross-attention number `layer`, in runs of neighbours that do and do not.
pub(super) fn image_kv_of_rows(rows: &[PreparedConditioning], layer: usize) -> Result<Vec<MoreKeyValues>> {
    let runs = rows.chunk_by(|a, b| a.image.is_some() == b.image.is_some());
    let run = |rows: &[PreparedConditioning]| {
        let parts = rows.iter().filter_map(|row| row.image.as_ref());
        let parts: Vec<&KeyValues> = parts.map(|image| image.of_layer(layer)).collect::<Result<_>>()?;
        Ok(MoreKeyValues {
            rows: rows.len(),
            kv: (!parts.is_empty()).then(|| KeyValues::cat(&parts)).transpose()?,
        })
    };
    runs.map(run).collect()
}
