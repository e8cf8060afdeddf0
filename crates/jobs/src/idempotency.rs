//! What the caller's own name for a request means: the rules that every store applies when a job is inserted.

use std::time::{Duration, SystemTime};

use pentimento_types::{Idempotency, Job, JobId};

use crate::JobsError;

/// How long a key stands for its job, counted from the job's making. A job that is forgotten earlier takes its key along.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Whether the key of this job stands for it at `now`, a time of an [`crate::AgeClock`] with [`KEY_LIFE`], so that the same
/// request under it is no new job.
#[must_use]
pub fn key_stands(job: &Job, now: SystemTime) -> bool {
    // A clock that was set back does not make a young job an old one.
    job.idempotency.is_some() && now.duration_since(job.created_at).unwrap_or_default() < KEY_LIFE
}

/// The job of `request`, where its owner's key stands for `first` already.
///
/// # Errors
/// [`JobsError::KeyReused`] where `first` was made of another request.
pub fn known_request(first: &Job, request: &Idempotency) -> Result<JobId, JobsError> {
    if first.idempotency.as_ref() == Some(request) {
        Ok(first.id)
    } else {
        Err(JobsError::KeyReused { id: first.id })
    }
}
