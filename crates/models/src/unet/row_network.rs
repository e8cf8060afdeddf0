//! What rows of one network need in a forward that they share with those of others.

use std::sync::Arc;

use crate::layers::{BranchSet, ProgramsId};

/// What a row has of its network, from [`UNet::row_network`](super::UNet::row_network): rows whose networks have the same
/// programs share a forward, each with its own branches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RowNetwork {
    pub(super) programs: ProgramsId,
    /// Beside the layers, of a copy with a set of LoRAs.
    pub(super) branches: Option<Arc<BranchSet>>,
}

impl RowNetwork {
    /// Where its predictions are computed.
    #[must_use]
    pub const fn programs(&self) -> ProgramsId {
        self.programs
    }
}
