//! A conditioning as the UNet needs it: what is the same at every evaluation, which are the keys and values that it attends
//! to and what SDXL adds to the embedding of the timestep.

use std::sync::Arc;

use crate::ConditioningShape;
use crate::layers::{InputList, Inputs, KernelError, KeyValues, KvPlaces, MoreKeyValues, Result, Tensor};

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

impl From<Vec<KeyValues>> for CrossAttnKv {
    fn from(layers: Vec<KeyValues>) -> Self {
        Self { layers }
    }
}

impl CrossAttnKv {
    fn of_layer(&self, layer: usize) -> Result<&KeyValues> {
        self.layers.get(layer).ok_or_else(|| {
            let layers = self.layers.len();
            KernelError::mismatch(format!(
                "the conditioning is that of a network of {layers} layers"
            ))
        })
    }
}

/// What each of `rows` adds to the embedding of its timestep, (1, 1, width) each.
pub(super) fn added_of_rows(rows: &[PreparedConditioning]) -> Result<Vec<&Tensor>> {
    let added = rows.iter().map(|row| {
        let added = row.added.as_ref();
        added.ok_or_else(|| KernelError::mismatch("the conditioning has no pooled state"))
    });
    added.collect()
}

/// Where a forward finds the keys and values of its rows.
#[derive(Debug)]
pub(super) struct InputKv {
    /// For each layer, (B, S, width) each.
    text: Vec<KvPlaces>,
    image: Vec<ImageRun>,
}

/// Neighbouring rows that all have image tokens or all have none.
#[derive(Debug)]
struct ImageRun {
    rows: usize,
    /// For each layer; empty without image tokens.
    layers: Vec<KvPlaces>,
}

impl InputKv {
    /// Gives those of `rows` for `layers` cross-attentions to a computation.
    pub(super) fn new<'a>(
        rows: &'a [PreparedConditioning],
        layers: usize,
        given: &mut InputList<'a>,
    ) -> Result<Self> {
        let mut give = |parts: &[&'a CrossAttnKv]| -> Result<Vec<KvPlaces>> {
            let layers = (0..layers).map(|layer| {
                let parts = parts.iter().map(|part| part.of_layer(layer));
                let parts = parts.collect::<Result<Vec<_>>>()?;
                Ok(KeyValues::give(&parts, given))
            });
            layers.collect()
        };
        let text = give(&rows.iter().map(|row| &*row.kv).collect::<Vec<_>>())?;
        let runs = rows.chunk_by(|a, b| a.image.is_some() == b.image.is_some());
        let image = runs.map(|rows| {
            let parts: Vec<&CrossAttnKv> = rows.iter().filter_map(|row| row.image.as_deref()).collect();
            let layers = if parts.is_empty() {
                Vec::new()
            } else {
                give(&parts)?
            };
            Ok(ImageRun {
                rows: rows.len(),
                layers,
            })
        });
        let image = image.collect::<Result<_>>()?;
        Ok(Self { text, image })
    }

    /// How many rows there are in each run, and whether they have image tokens.
    pub(super) fn image_runs(&self) -> Vec<(usize, bool)> {
        let runs = self.image.iter();
        runs.map(|run| (run.rows, !run.layers.is_empty())).collect()
    }

    /// Keys and values of all rows for cross-attention number `layer`.
    pub(super) fn text(&self, layer: usize, inputs: &Inputs<'_>) -> Result<KeyValues> {
        let places = self.text.get(layer);
        let places = places.ok_or_else(|| KernelError::mismatch("a layer without keys and values"))?;
        places.get(inputs)
    }

    /// What the rows attend to beside their text in cross-attention number `layer`.
    pub(super) fn image(&self, layer: usize, inputs: &Inputs<'_>) -> Result<Vec<MoreKeyValues>> {
        let runs = self.image.iter().map(|run| {
            let kv = run.layers.get(layer);
            Ok(MoreKeyValues {
                rows: run.rows,
                kv: kv.map(|places| places.get(inputs)).transpose()?,
            })
        });
        runs.collect()
    }
}
