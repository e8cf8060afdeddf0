//! What the caller's own name for a request means: the rules that every store applies when a job is inserted.

use std::time::{Duration, SystemTime};

use pentimento_types::Job;

use crate::{Inserted, JobsError};

/// How long a key stands for its job, counted from the job's making. A job that is forgotten earlier takes its key along.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Whether the key of this job stands for it at `now`, a time of an [`crate::AgeClock`] with [`KEY_LIFE`], so that the same
/// request under it is no new job.
#[must_use]
pub fn key_stands(job: &Job, now: SystemTime) -> bool {
    // A clock that was set back does not make a young job an old one.
    job.idempotency.is_some() && now.duration_since(job.created_at).unwrap_or_default() < KEY_LIFE
}

/// What becomes of `new` where its owner's key stands for `first` already.
///
/// # Errors
/// [`JobsError::KeyReused`] where they are different requests.
pub fn known_request(first: &Job, new: &Job) -> Result<Inserted, JobsError> {
    let digest = |job: &Job| job.idempotency.as_ref().map(|request| request.digest.clone());
    if digest(first) == digest(new) {
        Ok(Inserted::Known(first.id))
    } else {
        Err(JobsError::KeyReused { id: first.id })
    }
}
