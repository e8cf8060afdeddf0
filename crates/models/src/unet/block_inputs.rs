//! What every block of a forward is given beside the output of the block before.

use super::cross_attn_kv::InputKv;
use super::row_map::RowMap;
use crate::layers::{Inputs, KeyValues, MoreKeyValues, Result, Tensor};

/// The same for all blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockInputs<'a> {
    /// The time embedding, activated: (P, 1, width), or (B, 1, width) in a network that adds each row's text to it.
    pub(super) time: &'a Tensor,
    /// Where keys and values of B rows are among the inputs of the forward.
    pub(super) kv: &'a InputKv,
    pub(super) inputs: &'a Inputs<'a>,
    /// Which rows belong to which image.
    pub(super) rows: &'a RowMap,
}

impl BlockInputs<'_> {
    /// Keys and values of all rows for cross-attention number `layer`.
    pub(super) fn cross_attn_kv(&self, layer: usize) -> Result<KeyValues> {
        self.kv.text(layer, self.inputs)
    }

    /// Those of their image tokens.
    pub(super) fn image_kv(&self, layer: usize) -> Result<Vec<MoreKeyValues>> {
        self.kv.image(layer, self.inputs)
    }
}
