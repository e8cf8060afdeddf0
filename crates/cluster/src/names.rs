//! What a caller calls a request and what a dialect calls a job, once in the whole cluster: whoever writes the hashed name into
//! the bucket first has it.
//!
//! A name is taken before the record is stored, so a node that dies in between leaves a name without a job. Such a name is
//! waited for a while, since the job may be just being stored, and is then taken over.

use std::future::Future;
use std::time::Duration;

use pentimento_jobs::JobsError;
use pentimento_types::{Clock as _, Job, JobId, SystemClock};

use crate::bucket::{Bucket, NotWritten, Value};
use crate::envelope::{NameHolder, plain, read_plain};

/// How long a name without a job may belong to one that is just being stored.
const BEING_STORED: Duration = Duration::from_secs(5);
/// Between two looks whether it is stored.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What has become of a name.
#[derive(Debug)]
pub(crate) enum Named {
    /// It is the new job's.
    Ours,
    /// It stands for this job.
    Taken(Box<Job>),
}

/// Takes a name for a job, unless it `stands` for another one that `find` finds.
pub(crate) async fn take<F>(
    names: &Bucket,
    key: &str,
    id: JobId,
    (find, stands): (impl Fn(JobId) -> F, impl Fn(&Job) -> bool),
) -> Result<Named, JobsError>
where
    F: Future<Output = Result<Option<Job>, JobsError>>,
{
    let ours = plain(&NameHolder { job: id });
    let patience = SystemClock.now() + BEING_STORED;
    loop {
        match names.create(key, ours.clone()).await {
            Ok(_) => return Ok(Named::Ours),
            Err(NotWritten::Conflict) => {}
            Err(NotWritten::Failed(error)) => return Err(error),
        }
        let Some(Value { bytes, revision }) = names.get(key).await? else {
            // Given back in between.
            continue;
        };
        let holder = read_plain::<NameHolder>(&bytes).map(|holder| holder.job);
        if holder == Some(id) {
            return Ok(Named::Ours);
        }
        let job = match holder {
            Some(holder) => find(holder).await?,
            None => None,
        };
        match job {
            Some(job) if stands(&job) => return Ok(Named::Taken(Box::new(job))),
            None if holder.is_some() && SystemClock.now() < patience => {
                SystemClock.sleep_until(SystemClock.now() + LOOK_AGAIN).await;
                continue;
            }
            Some(_) | None => {}
        }
        match names.update(key, ours.clone(), revision).await {
            Ok(_) => return Ok(Named::Ours),
            // Somebody was faster.
            Err(NotWritten::Conflict) => {}
            Err(NotWritten::Failed(error)) => return Err(error),
        }
    }
}

/// Gives a name back that a job has. What fails is found out by the next who wants the name.
pub(crate) async fn give_back(names: &Bucket, key: &str, id: JobId) {
    let Ok(Some(Value { bytes, revision })) = names.get(key).await else {
        return;
    };
    if read_plain::<NameHolder>(&bytes).is_some_and(|holder| holder.job == id) {
        let _ = names.delete(key, Some(revision)).await;
    }
}

/// The job that has a name.
pub(crate) async fn holder(names: &Bucket, key: &str) -> Result<Option<JobId>, JobsError> {
    let found = names.get(key).await?;
    Ok(found
        .and_then(|value| read_plain::<NameHolder>(&value.bytes))
        .map(|holder| holder.job))
}
