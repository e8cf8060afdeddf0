//! What the UNet computes on its device, as the key of a program tells it apart.

use super::row_map::Merging;

/// What the network computes, and on what it depends how beside the shapes of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Computation {
    /// Keys and values of a text, and what SDXL adds for it.
    Prepare,
    /// A prediction.
    Predict {
        merging: Merging,
        image_runs: Vec<(usize, bool)>,
    },
}
