//! A stored request with a life. Only `jobs::state_machine` changes a job's state.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, ErrorKind, GenerationRequest, ImageFormat, ImageKey, JobId, Size};

/// Where a job is in its life. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Stored, and waiting for a worker.
    Queued,
    /// A worker holds a lease on it.
    Running,
    /// Its pictures are stored.
    Succeeded,
    /// It ended without pictures; the outcome says why.
    Failed,
    /// The caller did not want it any more.
    Cancelled,
}

impl JobState {
    /// Whether nothing can change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Evaluations done and to do, over all pictures of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Evaluations that have run.
    pub done: u32,
    /// Evaluations of the whole job; 0 until it has been prepared.
    pub total: u32,
}

/// A finished picture in the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Object name.
    pub key: ImageKey,
    /// Encoding.
    pub format: ImageFormat,
    /// Pixels.
    pub size: Size,
    /// The seed of this very picture.
    pub seed: u64,
}

/// Why a job failed: a kind for programs and a text that may be shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    /// The kind.
    pub kind: ErrorKind,
    /// Short and safe to show: no paths, no panic text.
    pub message: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// All pictures, in order.
    Succeeded(Vec<StoredImage>),
    /// The reason.
    Failed(JobFailure),
    /// Cancelled by its caller.
    Cancelled,
}

/// One job as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id, given out only after it is stored.
    pub id: JobId,
    /// Who asked.
    pub owner: ApiKeyId,
    /// What was asked; its pictures are references into the object store.
    pub request: GenerationRequest,
    /// What a dialect wants to find again when it answers for this job later; opaque to everybody else.
    #[serde(default)]
    pub note: Option<String>,
    /// Where it is in its life.
    pub state: JobState,
    /// How many times it has been started.
    pub attempt: u32,
    /// Evaluations done.
    pub progress: Progress,
    /// Set in the final states.
    pub outcome: Option<JobOutcome>,
    /// When it was stored.
    pub created_at: SystemTime,
    /// When it reached a final state.
    pub finished_at: Option<SystemTime>,
}
