//! Who runs which job: entries that are claimed for a while and come back when their worker is silent.

use std::time::Duration;

use async_trait::async_trait;
use pentimento_types::JobId;

use crate::JobsError;

/// A worker's temporary right to run a job. It ends when the lease runs out, when it is released, or when the job is
/// complete; whatever is done with it later is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    job: JobId,
    token: u64,
}

impl Claim {
    /// For implementations: `token` must differ between any two claims on the same job.
    #[must_use]
    pub const fn new(job: JobId, token: u64) -> Self {
        Self { job, token }
    }

    /// The claimed job.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }

    /// What tells this claim from others on the same job.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }
}

/// Hands jobs to workers, oldest first, each to one worker at a time.
#[async_trait]
pub trait JobQueue: Send + Sync + std::fmt::Debug {
    /// Puts a job at the end. Pushing one that is in the queue or claimed changes nothing.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn push(&self, id: JobId) -> Result<(), JobsError>;

    /// Waits for a job and claims it for `lease`. A job whose lease ran out is among those that can be claimed.
    ///
    /// Cancel safe: a claim is never made and lost when the future is dropped.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn claim(&self, lease: Duration) -> Result<Claim, JobsError>;

    /// Extends the lease to `lease` from now.
    ///
    /// # Errors
    /// [`JobsError::ClaimLost`]: another worker has the job or may get it; stop and write nothing.
    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError>;

    /// Gives the job back for another attempt: to the front at once, or after a `delay`.
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
