//! Who runs which job: entries that are claimed for a while and come back when their worker is silent.

use std::time::Duration;

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Job, JobId, ModelId, Priority, Recipe};
use serde::{Deserialize, Serialize};

use crate::JobsError;

/// A worker's temporary right to run a job. It ends when another worker has the job, because the lease ran out; when it is
/// released; or when the job is complete. Whatever is done with it later is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    job: JobId,
    owner: ApiKeyId,
    token: u64,
}

impl Claim {
    /// For implementations: `token` must differ between any two claims on the same job.
    #[must_use]
    pub const fn new(job: JobId, owner: ApiKeyId, token: u64) -> Self {
        Self { job, owner, token }
    }

    /// The claimed job.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }

    /// Whose job it is.
    #[must_use]
    pub const fn owner(&self) -> &ApiKeyId {
        &self.owner
    }

    /// What tells this claim from others on the same job.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }
}

/// What the queue knows of a job: enough to say when its turn is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The job.
    pub id: JobId,
    /// Whose turn it uses.
    pub owner: ApiKeyId,
    /// The checkpoint that it needs: several machines may have different ones in memory.
    pub model: ModelId,
    /// What it needs beside that: a machine that lacks one of these cannot run it.
    pub beside: ModelsBeside,
    /// Whether only the process that took the job runs it.
    pub stays: bool,
    /// Before or behind other jobs of its owner. It is no way to get ahead of other owners.
    pub priority: Priority,
    /// About how much of the device's time it takes, in the units of [`Job::work`].
    pub work: u64,
}

impl QueueEntry {
    /// The entry of a stored job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self {
            id: job.id,
            owner: job.owner.clone(),
            model: job.recipe.model.clone(),
            beside: ModelsBeside::of(&job.recipe),
            stays: job.stays,
            priority: job.priority,
            work: job.work,
        }
    }
}

/// The models that a job names beside its checkpoint, as its caller named them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelsBeside {
    /// Another VAE than the checkpoint's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<ModelId>,
    /// LoRAs, without those of strength 0, whose files are not needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<ModelId>,
    /// Textual inversions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<ModelId>,
    /// An IP-Adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_adapter: Option<ModelId>,
}

impl ModelsBeside {
    /// Those of a recipe.
    #[must_use]
    pub fn of(recipe: &Recipe) -> Self {
        let loras = recipe.loras.iter().filter(|lora| lora.strength != 0.0);
        let embeddings = recipe.embeddings.iter();
        Self {
            vae: recipe.vae.clone(),
            loras: loras.map(|lora| lora.model.clone()).collect(),
            embeddings: embeddings.map(|embedding| embedding.model.clone()).collect(),
            ip_adapter: recipe.ip_adapter.as_ref().map(|adapter| adapter.model.clone()),
        }
    }
}

/// Hands jobs to workers, each to one worker at a time, and fairly: owners that have jobs waiting get the same amount of
/// work done, whatever the number of their jobs. Among the jobs of one owner the more urgent go first, then the older.
///
/// What an owner was given while it was alone is not held against it later, and nobody saves up turns.
#[async_trait]
pub trait JobQueue: Send + Sync + std::fmt::Debug {
    /// Puts a job behind its like. Pushing one that is in the queue or claimed changes nothing.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError>;

    /// Waits for a job and claims it for `lease`. A job whose lease ran out can be claimed soon after that, unless its worker
    /// is heard in the meantime. The jobs of the owners in `except` are left for a later call.
    ///
    /// Cancel safe: a claim is never made and lost when the future is dropped.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError>;

    /// Extends the lease to `lease` from now, also one that ran out while nobody took the job: a process that was stopped for
    /// a while finds its jobs as it left them.
    ///
    /// # Errors
    /// [`JobsError::ClaimLost`]: another worker has the job; stop and write nothing.
    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError>;

    /// Gives the job back for another attempt: ahead of its owner's others at once, or after a `delay`.
    ///
    /// # Errors
    /// [`JobsError::ClaimLost`].
    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError>;

    /// Takes the entry out: the job has ended.
    ///
    /// # Errors
    /// [`JobsError::ClaimLost`].
    async fn complete(&self, claim: Claim) -> Result<(), JobsError>;

    /// Takes an entry out that nobody has claimed, because its job has ended. An implementation that cannot may leave
    /// it for a worker, which will see that the job has ended.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn forget(&self, id: JobId) -> Result<(), JobsError>;
}
