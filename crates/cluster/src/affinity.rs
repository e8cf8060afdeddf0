//! Which of the waiting jobs a node asks for first.

use std::time::{Duration, SystemTime};

use pentimento_jobs::QueueEntry;
use pentimento_types::{JobId, ModelId};

use crate::ModelToken;

/// A checkpoint for which jobs wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingModel {
    /// As it stands in subjects.
    pub token: ModelToken,
    /// As its job names it, where this node has heard that.
    pub model: Option<ModelId>,
    /// When the oldest of the jobs was made.
    pub oldest: SystemTime,
}

/// What a node prefers.
pub trait Affinity: Send + Sync + std::fmt::Debug {
    /// The checkpoints whose jobs this node asks for now, in this order. Those that are left out wait for other nodes.
    fn order(&self, waiting: Vec<WaitingModel>) -> Vec<ModelToken>;

    /// Whether this node can run a job that it has got, with all models that the job needs beside its checkpoint.
    fn takes(&self, entry: &QueueEntry) -> bool;
}

/// The oldest first, whatever it needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct OldestFirst;

impl Affinity for OldestFirst {
    fn order(&self, mut waiting: Vec<WaitingModel>) -> Vec<ModelToken> {
        waiting.sort_by_key(|model| model.oldest);
        waiting.into_iter().map(|model| model.token).collect()
    }

    fn takes(&self, _: &QueueEntry) -> bool {
        true
    }
}

/// Ids are made of the time of their making.
pub(crate) fn made_at(id: JobId) -> SystemTime {
    let millis = u64::try_from(id.as_uuid().as_u128() >> 80).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn an_id_tells_when_it_was_made() {
        let before = SystemClock.wall();
        let made = made_at(JobId::new());
        let off = made
            .duration_since(before)
            .unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(5), "{off:?}");
    }
}
