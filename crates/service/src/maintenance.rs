//! What is done from time to time: deleting what nobody can ask for any more, and mending what a crash left behind:
//! queueing what is not queued, and failing what nobody fetches for.
//!
//! The records say which pictures there are; the store of pictures itself is listed once a day only.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::{JobFilter, JobsError, QueueEntry};
use pentimento_storage::StorageError;
use pentimento_types::{ImageKey, Job, JobId, JobState, describe_chain};

use crate::inner::Inner;
use crate::{ServiceError, webhooks};

/// Everything that is stored is looked through at the start, and then so rarely: a bucket may hold a million pictures.
const BETWEEN_LOOKS: Duration = Duration::from_secs(24 * 3600);
/// After a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// Records that are read at once.
const PAGE: usize = 100;
/// Inputs younger than this may belong to a job that is just being stored.
const INPUT_AGE: Duration = Duration::from_secs(3600);

/// Sweeps until the service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut next_look = inner.clock.now();
    loop {
        sweep(&inner).await;
        if inner.clock.now() >= next_look {
            match sweep_orphans(&inner).await {
                Ok(()) => next_look = inner.clock.now() + BETWEEN_LOOKS,
                Err(error) => {
                    tracing::warn!(
                        error = describe_chain(&error),
                        "the pictures could not be looked through"
                    );
                    next_look = inner.clock.now() + LOOK_AGAIN;
                }
            }
        }
        let next = inner.clock.now() + inner.config.sweep_interval;
        tokio::select! {
            () = inner.clock.sleep_until(next) => {}
            () = inner.stopped() => return,
        }
    }
}

/// One round. What fails is logged and tried again in the next round.
pub(crate) async fn sweep(inner: &Inner) {
    inner.delete_expired_pictures().await;
    if let Err(error) = tend_jobs(inner).await {
        tracing::warn!(error = describe_chain(&error), "the jobs could not be swept");
    }
}

/// Jobs that are stored and not in the queue get into it; those that are already there are not touched. Jobs whose images
/// nobody fetches any more fail.
async fn tend_jobs(inner: &Inner) -> Result<(), JobsError> {
    // What is stored while the list is made may not be in it.
    let mut known = inner.admitted.known();
    known.extend(inner.progress.known());
    let unfinished = unfinished(inner).await?;
    let ours = || unfinished.iter().filter(|job| inner.store.is_ours(job));
    for job in ours().filter(|job| job.state != JobState::Fetching) {
        inner.queue.push(QueueEntry::of(job)).await?;
        if !known.contains(&job.id) {
            forecast_found(inner, job).await?;
        }
    }
    let is_unfinished = |id| unfinished.binary_search_by_key(&id, |job: &Job| job.id).is_ok();
    let may_be_open = |id| !known.contains(&id) || is_unfinished(id);
    inner.admitted.retain(may_be_open);
    inner.progress.retain(may_be_open);
    for job in ours().filter(|job| job.state == JobState::Fetching) {
        inner.fail_if_lost(job.id).await?;
    }
    give_webhooks_up(inner).await?;
    expire_jobs(inner).await
}

/// A job of an earlier process, which nobody has forecast in this one.
async fn forecast_found(inner: &Inner, job: &Job) -> Result<(), JobsError> {
    inner.progress.expect_found(job);
    // What has ended since the list was made is waited for by nobody.
    let now = inner.store.get(job.id).await?;
    if now.is_none_or(|job| job.state.is_final()) {
        inner.progress.forget(job.id);
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

/// What receivers have not taken for too long.
async fn give_webhooks_up(inner: &Inner) -> Result<(), JobsError> {
    let Some(before) = inner.before(webhooks::MAX_AGE) else {
        return Ok(());
    };
    let given_up = inner.outbox.give_up(before, webhooks::TOO_OLD).await?;
    if given_up > 0 {
        tracing::warn!(webhooks = given_up, "given up: {}", webhooks::TOO_OLD);
    }
    Ok(())
}

/// Jobs that ended long ago are forgotten, with their pictures. Ids sort by the time of their making, so only the oldest are
/// looked at.
async fn expire_jobs(inner: &Inner) -> Result<(), JobsError> {
    let Some(before) = inner.before(inner.config.deleted_after()) else {
        return Ok(());
    };
    let mut filter = JobFilter {
        states: vec![JobState::Succeeded, JobState::Failed, JobState::Cancelled],
        limit: PAGE,
        ..JobFilter::default()
    };
    loop {
        let page = inner.store.list(&filter).await?;
        let old = page
            .iter()
            .filter(|job| job.finished_at.is_some_and(|end| end < before))
            .filter(|job| inner.store.is_ours(job));
        for job in old {
            if let Err(error) = inner.delete_outputs(job).await {
                // Found again when all pictures are looked at.
                tracing::warn!(job = %job.id, error = describe_chain(&error), "the pictures of an old job could not be deleted");
            }
        }
        filter.after = page.last().map(|job| job.id);
        if page.len() < PAGE || page.last().is_none_or(|job| job.created_at >= before) {
            break;
        }
    }
    let forgotten = inner.store.expire(before).await?;
    if !forgotten.is_empty() {
        tracing::info!(jobs = forgotten.len(), "forgot old jobs and their pictures");
    }
    Ok(())
}

/// What no record leads to: files that a kill has left, and pictures of jobs that were forgotten for want of room. Lists
/// everything that is stored.
pub(crate) async fn sweep_orphans(inner: &Inner) -> Result<(), ServiceError> {
    if !inner.store.sees_all() {
        // What belongs to a job that this process has not heard of would look like an orphan.
        return Err(ServiceError::OutOfService {
            reason: "the jobs of the cluster are not all known yet",
        });
    }
    let staged = inner
        .images
        .delete_unfinished(inner.started)
        .await
        .map_err(not_looked)?;
    if staged > 0 {
        tracing::info!(files = staged, "deleted files that were never finished");
    }
    let mut old = match inner.before(inner.config.deleted_after()) {
        Some(before) => inner.images.outputs_before(before).await.map_err(not_looked)?,
        None => Vec::new(),
    };
    let inputs = match inner.before(INPUT_AGE) {
        Some(before) => inner.images.inputs_before(before).await.map_err(not_looked)?,
        None => Vec::new(),
    };
    // Read after the lists, so that no job is missed whose pictures are in them.
    let unfinished = unfinished(inner)
        .await
        .map_err(ServiceError::store("read the jobs"))?;
    let unfinished: HashSet<JobId> = unfinished.into_iter().map(|job| job.id).collect();
    old.extend(inputs_of_nobody(inner, inputs).await?);
    old.retain(|key| key.job().is_none_or(|id| !unfinished.contains(&id)));
    if !old.is_empty() {
        tracing::info!(
            pictures = old.len(),
            "deleting pictures that belong to no job any more"
        );
    }
    for key in old {
        inner.images.delete(&key).await.map_err(not_looked)?;
    }
    Ok(())
}

/// Those of these inputs that no machine wants any more, if the job has ended or is not known. A machine that is cut off from the
/// others, and not from the pictures, works on jobs of which nobody else knows; so only its own machine deletes what belongs to a
/// job, and of a machine that never comes back what is so old that no job of it would be begun.
async fn inputs_of_nobody(inner: &Inner, inputs: Vec<ImageKey>) -> Result<Vec<ImageKey>, ServiceError> {
    if !inner.store.is_shared() {
        return Ok(inputs);
    }
    let lost: HashSet<ImageKey> = match inner.before(inner.config.lost_after()) {
        Some(before) => inner.images.inputs_before(before).await.map_err(not_looked)?,
        None => Vec::new(),
    }
    .into_iter()
    .collect();
    let mut of_nobody = Vec::new();
    for key in inputs {
        let is_done = match key.job() {
            Some(id) if !lost.contains(&key) => {
                let job = inner.store.get(id).await;
                let job = job.map_err(ServiceError::store("read the jobs"))?;
                job.is_some_and(|job| job.state.is_final() && inner.store.is_ours(&job))
            }
            Some(_) | None => true,
        };
        if is_done {
            of_nobody.push(key);
        }
    }
    Ok(of_nobody)
}

fn not_looked(error: StorageError) -> ServiceError {
    ServiceError::store("look through the pictures")(error)
}
