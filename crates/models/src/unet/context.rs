//! A prompt as the UNet attends to it: keys and values, which are the same at every evaluation.

use candle_core::{Result, Tensor};

/// The keys and values of every attention to the text, made once by [`UNet::context`](super::UNet::context) and used at
/// every evaluation. Rows of several pictures are joined for a forward that they share.
#[derive(Clone, Debug)]
pub struct UNetContext {
    /// In the order of the layers, (B, T, width) each.
    layers: Vec<[Tensor; 2]>,
    rows: usize,
    tokens: usize,
}

impl UNetContext {
    /// `layers` of a text of shape (B, T).
    pub(super) fn new(layers: Vec<[Tensor; 2]>, (rows, tokens): (usize, usize)) -> Self {
        Self { layers, rows, tokens }
    }

    /// The rows of all `parts`, one after the other.
    ///
    /// # Errors
    /// When there are none, or they differ in tokens or in the network that made them.
    pub fn join(parts: &[&Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            candle_core::bail!("no texts to join")
        };
        if let [only] = parts {
            return Ok((*only).clone());
        }
        let part = |layer: usize, which: usize| -> Result<Tensor> {
            let mut rows = Vec::with_capacity(parts.len());
            for part in parts {
                let Some(layer) = part.layers.get(layer) else {
                    candle_core::bail!("texts of different networks")
                };
                rows.push(&layer[which]);
            }
            Tensor::cat(&rows, 0)
        };
        Ok(Self {
            layers: (0..first.layers.len())
                .map(|layer| Ok([part(layer, 0)?, part(layer, 1)?]))
                .collect::<Result<_>>()?,
            rows: parts.iter().map(|part| part.rows).sum(),
            tokens: first.tokens,
        })
    }

    /// B
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// T
    #[must_use]
    pub const fn tokens(&self) -> usize {
        self.tokens
    }

    /// Keys and values of layer `number`.
    pub(super) fn layer(&self, number: usize) -> Result<&[Tensor; 2]> {
        let Some(layer) = self.layers.get(number) else {
            candle_core::bail!("the text is that of a network of {} layers", self.layers.len())
        };
        Ok(layer)
    }

    /// How many layers attend to the text.
    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }
}
