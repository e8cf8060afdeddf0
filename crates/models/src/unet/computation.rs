//! What the UNet predicts on its device, as the key of a program tells it apart.

use super::row_map::Merging;

/// On what a prediction depends how it is computed, beside the shapes of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prediction {
    pub(super) merging: Merging,
    pub(super) image_runs: Vec<(usize, bool)>,
    /// The room that each layer needs for the ranks of the rows' branches; empty without any.
    pub(super) rooms: Vec<usize>,
}
