//! Which of the waiting jobs a node asks for first.

use std::time::SystemTime;

use pentimento_jobs::QueueEntry;
use pentimento_types::ModelId;

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
