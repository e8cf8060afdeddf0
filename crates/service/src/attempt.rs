//! One attempt at one job: start it, read its input, drive the engine, store its pictures, end it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pentimento_engine::{EngineError, JobEvent, JobEvents, ResolvedJob, ResolvedModels};
use pentimento_jobs::{JobsError, Transition};
use pentimento_types::{ErrorKind, HasKind, Job, JobFailure, JobId, StoredImage, describe_chain};
use tokio::task::JoinSet;

use crate::service::Inner;
use crate::worker::Fault;
use crate::{ServiceError, deliver, inputs};

/// Between two tries to get into an engine whose last job has ended and not yet left.
const KNOCK: Duration = Duration::from_millis(20);

/// What is to become of the queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The job has ended, or is not ours any more.
    Ended,
    /// The job waits for another attempt.
    Again,
}

/// Why there are no pictures.
enum Miss {
    Fault(Fault),
    /// The job was cancelled, or another worker runs it.
    NotOurs,
}

impl From<Fault> for Miss {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(crate) async fn run(inner: Arc<Inner>, id: JobId) -> Verdict {
    let job = match inner.store.get(id).await {
        Ok(Some(job)) if !job.state.is_final() => job,
        Ok(_) => return Verdict::Ended,
        Err(error) => {
            tracing::error!(job = %id, error = describe_chain(&error), "a job cannot be read");
            return Verdict::Again;
        }
    };
    if job.attempt >= inner.config.max_attempts {
        let message = format!("the job was started {} times and never ended", job.attempt);
        return end_with(
            &inner,
            &job,
            Fault {
                kind: ErrorKind::Internal,
                message,
            },
        )
        .await;
    }
    let start = Transition::Start { attempt: job.attempt };
    let job = match inner.store.transition(id, start).await {
        Ok(job) => job,
        // Cancelled a moment ago, or started by another worker.
        Err(JobsError::Refused(_) | JobsError::NotFound { .. }) => return Verdict::Ended,
        Err(error) => {
            tracing::error!(job = %id, error = describe_chain(&error), "a job cannot be started");
            return Verdict::Again;
        }
    };
    match pictures(&inner, &job).await {
        Ok(images) => succeed(&inner, &job, images).await,
        Err(Miss::NotOurs) => Verdict::Ended,
        Err(Miss::Fault(fault)) => again_or_end(&inner, &job, fault).await,
    }
}

/// What to do with a job whose attempt panicked.
pub(crate) async fn after_panic(inner: &Inner, id: JobId) -> Verdict {
    let fault = Fault {
        kind: ErrorKind::Internal,
        message: "a fault in the server ended the job; it was logged".to_owned(),
    };
    match inner.store.get(id).await {
        Ok(Some(job)) if !job.state.is_final() => again_or_end(inner, &job, fault).await,
        _ => Verdict::Ended,
    }
}

async fn again_or_end(inner: &Inner, job: &Job, fault: Fault) -> Verdict {
    if fault.kind.is_retryable() && job.attempt < inner.config.max_attempts {
        let requeue = Transition::Requeue {
            attempt: job.attempt,
            not_before: None,
        };
        return match inner.store.transition(job.id, requeue).await {
            Ok(_) => Verdict::Again,
            Err(error) => {
                tracing::info!(job = %job.id, error = describe_chain(&error), "not tried again");
                Verdict::Ended
            }
        };
    }
    end_with(inner, job, fault).await
}

async fn end_with(inner: &Inner, job: &Job, fault: Fault) -> Verdict {
    tracing::warn!(job = %job.id, kind = fault.kind.as_str(), reason = fault.message, "failed");
    let failure = JobFailure {
        kind: fault.kind,
        message: fault.message,
    };
    end(
        inner,
        job,
        Transition::Fail {
            attempt: job.attempt,
            failure,
        },
    )
    .await
}

async fn succeed(inner: &Inner, job: &Job, images: Vec<StoredImage>) -> Verdict {
    tracing::info!(job = %job.id, attempt = job.attempt, pictures = images.len(), "succeeded");
    end(
        inner,
        job,
        Transition::Succeed {
            attempt: job.attempt,
            images,
        },
    )
    .await
}

async fn end(inner: &Inner, job: &Job, transition: Transition) -> Verdict {
    match inner.store.transition(job.id, transition).await {
        Ok(_) => {
            inner.delete_input(job.id).await;
            Verdict::Ended
        }
        Err(JobsError::Backend { .. }) => Verdict::Again,
        // Cancelled in the last moment, or taken over. The sweeper deletes pictures that nobody names.
        Err(error) => {
            tracing::info!(job = %job.id, error = describe_chain(&error), "the end came too late");
            Verdict::Ended
        }
    }
}

/// Runs the job in the engine and stores its pictures while later ones are still being made.
async fn pictures(inner: &Arc<Inner>, job: &Job) -> Result<Vec<StoredImage>, Miss> {
    let checkpoint = inner.find_checkpoint(&job.recipe.model);
    let checkpoint = checkpoint.map_err(|error| service_fault(job.id, &error))?;
    let images = inputs::load(inner, job)
        .await
        .map_err(|error| service_fault(job.id, &error))?;
    let resolved = ResolvedJob {
        recipe: Arc::new(job.recipe.clone()),
        models: ResolvedModels::checkpoint(checkpoint),
        images,
    };
    let reporter = inner.progress.begin(job.id);
    if job.attempt > 1 {
        // An attempt that was given up may still be in the engine, which takes each id once.
        inner.engine.cancel(job.id);
    }
    let mut events = knock(inner, job.id, &resolved).await?;
    let mut deliveries = JoinSet::new();
    loop {
        match events.next().await {
            Some(JobEvent::Progress(progress)) => reporter.report(progress),
            Some(JobEvent::Image { index, finished }) => {
                deliveries.spawn(deliver::deliver(Arc::clone(inner), job.clone(), index, finished));
            }
            Some(JobEvent::Finished) => break,
            Some(JobEvent::Failed(error)) => return Err(engine_fault(job.id, &error).into()),
            Some(JobEvent::Cancelled) => return Err(Miss::NotOurs),
            None => return Err(engine_fault(job.id, &EngineError::Stopped).into()),
        }
    }
    let mut images = BTreeMap::new();
    while let Some(delivered) = deliveries.join_next().await {
        let (index, image) = delivered
            .map_err(|source| ServiceError::Internal {
                source: Box::new(source),
            })
            .and_then(|delivered| delivered)
            .map_err(|error| service_fault(job.id, &error))?;
        images.insert(index, image);
    }
    let expected = job.recipe.image_count as usize;
    if images.len() != expected {
        let found = images.len();
        return Err(engine_fault(
            job.id,
            &EngineError::PictureCount {
                expected: job.recipe.image_count,
                found,
            },
        )
        .into());
    }
    Ok(images.into_values().collect())
}

/// Gets the job into the engine. There is a slot for it, so a full engine is one whose last job is just leaving.
async fn knock(inner: &Inner, id: JobId, job: &ResolvedJob) -> Result<JobEvents, Fault> {
    loop {
        match inner.engine.generate(id, job.clone()) {
            Ok(events) => return Ok(events),
            Err(EngineError::Overloaded { .. }) => {
                inner.clock.sleep_until(inner.clock.now() + KNOCK).await;
            }
            Err(error) => return Err(engine_fault(id, &error)),
        }
    }
}

/// Logs the whole chain and keeps what a caller may see. Texts of the engine's own errors name no path.
fn engine_fault(id: JobId, error: &EngineError) -> Fault {
    tracing::error!(job = %id, kind = error.kind().as_str(), error = describe_chain(error), "the engine failed");
    let message = if let EngineError::Executor(cause) = error {
        cause.to_string()
    } else {
        error.to_string()
    };
    Fault {
        kind: error.kind(),
        message,
    }
}

/// The same for errors of the service, whose texts are made for callers.
fn service_fault(id: JobId, error: &ServiceError) -> Fault {
    tracing::error!(job = %id, kind = error.kind().as_str(), error = describe_chain(error), "the job failed");
    Fault {
        kind: error.kind(),
        message: error.to_string(),
    }
}
