//! What every block of a forward is given beside the output of the block before.

use candle_core::{Result, Tensor};

use super::cross_attn_kv::{PreparedConditioning, image_kv_of_rows, kv_of_rows};
use super::row_map::RowMap;
use crate::layers::{KeyValues, MoreKeyValues};

/// The same for all blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockInputs<'a> {
    /// The time embedding, activated: (P, 1, width), or (B, 1, width) in a network that adds each row's text to it.
    pub(super) time: &'a Tensor,
    /// Of B rows.
    pub(super) conditioning: &'a [PreparedConditioning],
    /// Which rows belong to which image.
    pub(super) rows: &'a RowMap,
}

impl BlockInputs<'_> {
    /// Keys and values of all rows for cross-attention number `layer`.
    pub(super) fn cross_attn_kv(&self, layer: usize) -> Result<KeyValues> {
        kv_of_rows(self.conditioning, layer)
    }

    /// Those of their image tokens.
    pub(super) fn image_kv(&self, layer: usize) -> Result<Vec<MoreKeyValues>> {
        image_kv_of_rows(self.conditioning, layer)
    }
}
