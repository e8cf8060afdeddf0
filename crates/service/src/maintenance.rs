//! What is done from time to time: deleting what nobody can ask for any more, and mending what a crash left behind:
//! queueing what is not queued, and failing what nobody fetches for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::{JobFilter, JobsError, QueueEntry};
use pentimento_storage::StorageError;
use pentimento_types::{ImageKey, Job, JobId, JobState, describe_chain};

use crate::inner::Inner;
use crate::webhooks;

/// How long a picture outlives its links, so that a download that began in time can end.
const MARGIN: Duration = Duration::from_secs(600);
/// Inputs younger than this may belong to a job that is just being stored.
const INPUT_AGE: Duration = Duration::from_secs(3600);

/// Sweeps until the service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        sweep(&inner).await;
        let next = inner.clock.now() + inner.config.sweep_interval;
        tokio::select! {
            () = inner.clock.sleep_until(next) => {}
            () = inner.stopped() => return,
        }
    }
}

/// One round. A part that fails is logged and tried again in the next round.
pub(crate) async fn sweep(inner: &Inner) {
    if let Err(error) = tend_jobs(inner).await {
        tracing::warn!(error = describe_chain(&error), "the jobs could not be swept");
    }
    if let Err(error) = delete_pictures(inner).await {
        tracing::warn!(error = describe_chain(&error), "the pictures could not be swept");
    }
}

/// Jobs that are stored and not in the queue get into it; those that are already there are not touched. Jobs whose images
/// nobody fetches any more fail.
async fn tend_jobs(inner: &Inner) -> Result<(), JobsError> {
    // What is stored while the list is made may not be in it.
    let mut known = inner.admitted.known();
    known.extend(inner.progress.known());
    let unfinished = unfinished(inner).await?;
    for job in unfinished.iter().filter(|job| job.state != JobState::Fetching) {
        inner.queue.push(QueueEntry::of(job)).await?;
    }
    let is_unfinished = |id| unfinished.binary_search_by_key(&id, |job: &Job| job.id).is_ok();
    let may_be_open = |id| !known.contains(&id) || is_unfinished(id);
    inner.admitted.retain(may_be_open);
    inner.progress.retain(may_be_open);
    for job in unfinished.iter().filter(|job| job.state == JobState::Fetching) {
        inner.fail_if_lost(job.id).await?;
    }
    if let Some(before) = inner.before(webhooks::MAX_AGE) {
        let given_up = inner.outbox.give_up(before, webhooks::TOO_OLD).await?;
        if given_up > 0 {
            tracing::warn!(webhooks = given_up, "given up: {}", webhooks::TOO_OLD);
        }
    }
    if let Some(before) = inner.before(inner.config.keep_jobs) {
        inner.store.expire(before).await?;
    }
    Ok(())
}

/// By ascending id.
pub(crate) async fn unfinished(inner: &Inner) -> Result<Vec<Job>, JobsError> {
    let filter = JobFilter {
        states: vec![JobState::Fetching, JobState::Queued, JobState::Running],
        ..JobFilter::default()
    };
    inner.store.list(&filter).await
}

async fn delete_pictures(inner: &Inner) -> Result<(), StorageError> {
    let mut old = match inner.before(inner.config.keep_pictures.max(inner.config.link_ttl) + MARGIN) {
        Some(before) => inner.images.outputs_before(before).await?,
        None => Vec::new(),
    };
    if let Some(before) = inner.before(INPUT_AGE) {
        let inputs = inner.images.inputs_before(before).await?;
        if !inputs.is_empty()
            && let Ok(unfinished) = unfinished(inner).await
        {
            let wanted: HashSet<JobId> = unfinished.into_iter().map(|job| job.id).collect();
            let orphan = |key: &ImageKey| job_of_input(key).is_none_or(|id| !wanted.contains(&id));
            old.extend(inputs.into_iter().filter(orphan));
        }
    }
    if !old.is_empty() {
        tracing::info!(pictures = old.len(), "deleting old pictures");
    }
    for key in old {
        inner.images.delete(&key).await?;
    }
    Ok(())
}

/// The job in `inputs/<uuid>/<role>`.
fn job_of_input(key: &ImageKey) -> Option<JobId> {
    key.as_str().split('/').nth(1)?.parse().ok()
}
