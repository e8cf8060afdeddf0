//! One attempt at one job: start it, read its input, drive the engine, store its pictures, end it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use pentimento_engine::{
    EngineError, ExecutorError, JobEvent, JobEvents, JobTerms, Place, PreviewSwitch, ResolvedJob,
};
use pentimento_jobs::{JobsError, Transition};
use pentimento_types::{ErrorKind, HasKind, Job, JobFailure, JobId, JobState, StoredImage, describe_chain};
use tokio::task::JoinSet;
use tracing::{Instrument as _, Span};

use crate::admitted::Admitted;
use crate::inner::{Inner, Lifecycle};
use crate::inputs::PendingInputs;
use crate::job_marks::Mark;
use crate::job_span::{job_span, note_failure};
use crate::signing::OriginOnce;
use crate::sketches::Sketches;
use crate::{ServiceError, deliver, lateness};

/// Between two tries to get into an engine that has no room.
const ADMIT_AGAIN: Duration = Duration::from_millis(20);

/// What is to become of the queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// The job has ended, or is not ours any more.
    Ended,
    /// The job waits for another attempt.
    Again,
    /// The same, when its record can be read or written again.
    Later,
    /// The same, and another machine of the cluster should have it: this one has not all of its models.
    Elsewhere,
    /// The same, when the job is over that runs alone, as this one has to.
    BehindAnother,
}

/// A reason why an attempt failed: a kind for programs, a text for the caller. The causes are logged where it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    kind: ErrorKind,
    message: String,
    /// Whether another attempt would fail in the same way, whatever the kind says.
    permanent: bool,
    /// Whether the device was lost while it worked for this job.
    lost_device: bool,
}

impl Fault {
    const fn of_kind(kind: ErrorKind, message: String) -> Self {
        Self {
            kind,
            message,
            permanent: !kind.is_retryable(),
            lost_device: false,
        }
    }

    /// Of a job whose deadline has come: the next attempt would be late as well.
    fn late(job: &Job) -> Self {
        let JobFailure { kind, message } = lateness::too_late(job);
        Self {
            permanent: true,
            ..Self::of_kind(kind, message)
        }
    }
}

/// What a successful attempt has made.
struct Made {
    images: Vec<StoredImage>,
    /// When the device began.
    began_at: Option<SystemTime>,
}

/// Why there are no images.
enum AttemptError {
    Fault(Fault),
    /// The job was cancelled, or another worker runs it.
    NotOurs,
    /// Models of it are not on this machine of a cluster.
    NotHere,
}

impl From<Fault> for AttemptError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(crate) async fn run(inner: Arc<Inner>, id: JobId) -> Disposition {
    let _in_hand = inner.attempts.mark(id);
    let job = match inner.store.get(id).await {
        Ok(Some(job)) if !job.state.is_final() => job,
        Ok(_) => return Disposition::Ended,
        Err(error) => {
            tracing::error!(job = %id, error = describe_chain(&error), "a job cannot be read");
            return Disposition::Later;
        }
    };
    let crashes = crashes(&job);
    let is_given_up = crashes >= inner.config.max_attempts;
    let _alone = if crashes == 0 || is_given_up {
        // One that is given up does not run. The attempt that has the suspects' turn may even be its own, and never end.
        None
    } else {
        match inner.suspects.try_lock() {
            Ok(alone) => Some(alone),
            // Others run in the meantime: it waits in the queue, and not in one of their slots.
            Err(_) => return Disposition::BehindAnother,
        }
    };
    let left = match deliver::left_by_earlier_attempt(&inner, &job).await {
        Ok(left) => left,
        // It would be given up for pictures that may be there.
        Err(error) if (is_given_up || inner.is_late(&job)) && inner.looks_again(&job) => {
            tracing::warn!(job = %id, error = describe_chain(&error), "it cannot be seen whether its pictures are there");
            return Disposition::Later;
        }
        Err(_) => None,
    };
    if left.is_none() && is_given_up {
        let message = format!(
            "the job is poison: {crashes} times the server ended, or the worker fell silent, while the job ran, so it is not \
             tried again"
        );
        return end_with(&inner, &job, Fault::of_kind(ErrorKind::Internal, message)).await;
    }
    if left.is_none() && inner.is_late(&job) {
        return end_with(&inner, &job, Fault::late(&job)).await;
    }
    if inner.leaves_jobs() || cannot_run(&inner) {
        return Disposition::Later;
    }
    let start = Transition::Start { attempt: job.attempt };
    let job = match inner.transition(id, start).await {
        Ok(job) => job,
        // Cancelled a moment ago, or started by another worker.
        Err(JobsError::Refused(_) | JobsError::NotFound { .. }) => return Disposition::Ended,
        Err(error) => {
            tracing::error!(job = %id, error = describe_chain(&error), "a job cannot be started");
            return Disposition::Later;
        }
    };
    if let Some(images) = left {
        tracing::info!(job = %id, "an earlier attempt has stored all pictures");
        let began_at = None;
        return succeed(&inner, &job, Made { images, began_at }).await;
    }
    let span = job_span(&job, inner.traces);
    let attempt = async {
        let mut past_device = None;
        match images(&inner, &job, &mut past_device).await {
            Ok(made) => succeed(&inner, &job, made).await,
            Err(AttemptError::NotOurs) => Disposition::Ended,
            Err(AttemptError::NotHere) => leave_to_others(&inner, &job).await,
            Err(AttemptError::Fault(fault)) => {
                note_failure(&Span::current(), fault.kind.as_str());
                again_or_end(&inner, &job, fault).await
            }
        }
    };
    attempt.instrument(span).await
}

/// Ends a late job that no attempt has in hand: with the pictures that an earlier one has left, or as one that failed.
pub(crate) async fn end_late(inner: &Inner, job: &Job) -> Result<(), JobsError> {
    let left = match deliver::left_by_earlier_attempt(inner, job).await {
        Ok(left) => left,
        Err(error) if inner.looks_again(job) => {
            return Err(JobsError::Backend {
                what: "see whether the pictures of a late job are there",
                source: Box::new(error),
            });
        }
        Err(error) => {
            tracing::warn!(job = %job.id, error = describe_chain(&error), "its pictures, if there are any, cannot be read");
            None
        }
    };
    let Some(images) = left else {
        let failure = lateness::too_late(job);
        let attempt = job.attempt;
        let job = inner
            .transition(job.id, Transition::Fail { attempt, failure })
            .await?;
        tracing::warn!(job = %job.id, attempt, "given up at its deadline, as nobody ran it");
        inner.clear_away(&job).await;
        return Ok(());
    };
    let start = Transition::Start { attempt: job.attempt };
    let job = inner.transition(job.id, start).await?;
    let began_at = None;
    match succeed(inner, &job, Made { images, began_at }).await {
        Disposition::Later | Disposition::Elsewhere | Disposition::BehindAnother => Err(JobsError::Backend {
            what: "write the end of a late job",
            source: "its pictures are there, and it is looked at again".into(),
        }),
        Disposition::Ended | Disposition::Again => {
            inner.clear_away(&job).await;
            Ok(())
        }
    }
}

/// How many attempts never ended. One that still stands as running when the job is claimed is the last of them.
fn crashes(job: &Job) -> u32 {
    job.crashes + u32::from(job.state == JobState::Running)
}

/// What to do with a job whose attempt panicked.
pub(crate) async fn after_panic(inner: &Inner, id: JobId) -> Disposition {
    let message = "a fault in the server ended the job; it was logged".to_owned();
    let fault = Fault::of_kind(ErrorKind::Internal, message);
    match inner.store.get(id).await {
        Ok(Some(job)) if !job.state.is_final() => again_or_end(inner, &job, fault).await,
        _ => Disposition::Ended,
    }
}

async fn again_or_end(inner: &Inner, job: &Job, fault: Fault) -> Disposition {
    let attempt = job.attempt;
    let again = if inner.lifecycle() == Lifecycle::Stopped || (waits_for_device(inner) && !fault.lost_device)
    {
        // The engine was stopped below it, or the device was lost to another job.
        Transition::PutBack { attempt }
    } else if !fault.permanent && job.faults + 1 < inner.config.max_attempts {
        Transition::Requeue {
            attempt,
            not_before: None,
        }
    } else {
        return end_with(inner, job, fault).await;
    };
    match inner.transition(job.id, again).await {
        Ok(_) if waits_for_device(inner) => {
            tracing::info!(job = %job.id, "left for the next start, since the device is lost");
            Disposition::Later
        }
        Ok(_) => Disposition::Again,
        Err(JobsError::Backend { .. }) => Disposition::Later,
        Err(error) => {
            tracing::info!(job = %job.id, error = describe_chain(&error), "not tried again");
            Disposition::Ended
        }
    }
}

/// Puts a job back that this machine has not the models for, which is held against nobody.
async fn leave_to_others(inner: &Inner, job: &Job) -> Disposition {
    let put_back = Transition::PutBack { attempt: job.attempt };
    match inner.transition(job.id, put_back).await {
        Ok(_) => Disposition::Elsewhere,
        Err(JobsError::Backend { .. }) => Disposition::Later,
        Err(error) => {
            tracing::info!(job = %job.id, error = describe_chain(&error), "not left to others");
            Disposition::Ended
        }
    }
}

/// Whether no attempt can begin on this machine.
fn cannot_run(inner: &Inner) -> bool {
    inner.outage().is_some() || waits_for_device(inner)
}

/// Whether other machines should have what waits. This one, with nothing to do, would be the first at each job, and give it back.
pub(crate) fn leaves_to_others(inner: &Inner) -> bool {
    inner.nodes.is_some() && cannot_run(inner)
}

/// Whether jobs have to wait for a process that can use the device again, and will be there then.
fn waits_for_device(inner: &Inner) -> bool {
    inner.engine.is_lost() && inner.store.keeps_jobs()
}

async fn end_with(inner: &Inner, job: &Job, fault: Fault) -> Disposition {
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

async fn succeed(inner: &Inner, job: &Job, made: Made) -> Disposition {
    let Made { images, began_at } = made;
    tracing::info!(job = %job.id, attempt = job.attempt, pictures = images.len(), "succeeded");
    end(
        inner,
        job,
        Transition::Succeed {
            attempt: job.attempt,
            images,
            began_at,
        },
    )
    .await
}

async fn end(inner: &Inner, job: &Job, transition: Transition) -> Disposition {
    let write = || inner.transition(job.id, transition.clone());
    match inner.patiently(job.id, write).await {
        Ok(job) => {
            inner.progress.forget(job.id);
            // Where the attempt has not got so far as to take it.
            drop(inner.admitted.take(job.id));
            inner.delete_input_of_ended(&job).await;
            Disposition::Ended
        }
        Err(error @ JobsError::Backend { .. }) => {
            tracing::error!(job = %job.id, error = describe_chain(&error), "the end of a job cannot be written");
            Disposition::Later
        }
        // Cancelled in the last moment, or taken over. The sweeper deletes pictures that nobody names.
        Err(error) => {
            tracing::info!(job = %job.id, error = describe_chain(&error), "the end came too late");
            Disposition::Ended
        }
    }
}

/// Runs the job in the engine and stores its images while later ones are still being made. `past_device` is set once the engine
/// has ended with it.
async fn images(inner: &Arc<Inner>, job: &Job, past_device: &mut Option<Mark>) -> Result<Made, AttemptError> {
    // Nobody has forecast a job of an earlier process until the sweeper has been there.
    inner.progress.expect_found(job);
    let reporter = inner.progress.begin(job.id);
    let shown = Arc::new(inner.watched.enter(job.id));
    shown.note(job);
    let shows_previews = inner.config.safety.shows_previews(job.delivery.safety);
    let switch = if shows_previews {
        shown.switch()
    } else {
        PreviewSwitch::default()
    };
    let mut events = tokio::select! {
        events = admit(inner, job, switch) => events?,
        // In the engine the deadline is the engine's.
        () = inner.deadline_comes(job) => return Err(Fault::late(job).into()),
    };
    let mut deliveries = JoinSet::new();
    let origin = Arc::<OriginOnce>::default();
    let mut sketches = Sketches::new(shown, job.attempt);
    let mut began_at = None;
    loop {
        match events.next().await {
            Some(JobEvent::Started) => {
                let now = inner.clock.wall();
                began_at = Some(now);
                inner.metrics.began(job, now);
                // What never comes to the device says nothing of the time that it takes.
                if !job.recipe.gives_input_back() {
                    reporter.started();
                }
            }
            Some(JobEvent::Progress(progress)) => {
                reporter.report(progress);
                sketches.report(progress);
                inner.tell_progress(job.id, job.attempt, progress);
            }
            Some(JobEvent::Preview { index, image }) => sketches.draw(index, image),
            Some(JobEvent::Image { index, finished }) => {
                reporter.finished_image();
                inner.images_made.fetch_add(1, Ordering::Relaxed);
                let of = (job.clone(), Arc::clone(&origin));
                deliveries.spawn(deliver::deliver(Arc::clone(inner), of, index, finished));
            }
            Some(JobEvent::Finished) => break,
            Some(JobEvent::Failed(EngineError::DeadlineExceeded)) => return Err(Fault::late(job).into()),
            Some(JobEvent::Failed(error)) => return Err(engine_fault(job.id, &error).into()),
            Some(JobEvent::Cancelled) => return Err(AttemptError::NotOurs),
            None => return Err(engine_fault(job.id, &EngineError::Stopped).into()),
        }
    }
    *past_device = Some(inner.past_device.mark(job.id));
    let mut images = BTreeMap::new();
    while let Some(delivered) = deliveries.join_next().await {
        let (index, image) = delivered
            .map_err(ServiceError::internal)
            .and_then(|delivered| delivered)
            .map_err(|error| Fault {
                // The pictures have waited for the disk already.
                permanent: true,
                ..service_fault(job.id, &error)
            })?;
        images.insert(index, image);
    }
    let expected = job.recipe.image_count as usize;
    if images.len() != expected {
        let found = images.len();
        return Err(engine_fault(
            job.id,
            &EngineError::ImageCount {
                expected: job.recipe.image_count,
                found,
            },
        )
        .into());
    }
    Ok(Made {
        images: images.into_values().collect(),
        began_at,
    })
}

/// Gets the job into the engine.
async fn admit(inner: &Inner, job: &Job, previews: PreviewSwitch) -> Result<JobEvents, AttemptError> {
    let fault = |error: ServiceError| service_fault(job.id, &error);
    let (models, decoded) = match inner.admitted.take(job.id) {
        // From here on the engine accounts for the images.
        Some(Admitted { models, images }) => (models, images.map(PendingInputs::decoded)),
        None => match inner.resolve_models(&job.recipe).await {
            Ok((models, _)) => (models, None),
            Err(error) if is_for_others(inner, job, &error) => {
                tracing::warn!(
                    job = %job.id,
                    error = describe_chain(&error),
                    "left to the cluster's other machines"
                );
                return Err(AttemptError::NotHere);
            }
            Err(error) => return Err(fault(error).into()),
        },
    };
    if job.attempt > 1 {
        // An attempt that was given up may still be in the engine, which takes each id once.
        inner.engine.cancel(job.id);
    }
    let pending = match decoded {
        Some(inputs) => inputs,
        None => PendingInputs::read(inner, job).await.map_err(fault)?,
    };
    let (place, pending) = place(inner, job, pending).await?;
    let pending = match pending {
        Some(inputs) => inputs,
        None => PendingInputs::read(inner, job).await.map_err(fault)?,
    };
    let resolved = ResolvedJob {
        recipe: Arc::new(job.recipe.clone()),
        models,
        images: pending.decode(inner, job).await.map_err(fault)?,
    };
    let terms = JobTerms {
        owner: job.owner.clone(),
        work: job.work,
        priority: job.priority,
        deadline: inner.deadline_of(job),
        previews,
    };
    let events = inner.engine.generate_in(place, job.id, resolved, terms);
    let events = events.map_err(|error| engine_fault(job.id, &error))?;
    // A cancel in the meantime has not met the job in the engine. A later one does, and dropped events end it there.
    check_ours(inner, job).await?;
    Ok(events)
}

/// Whether a job lacks a model here that another machine of the cluster may have: it was accepted because one had all of them.
fn is_for_others(inner: &Inner, job: &Job, error: &ServiceError) -> bool {
    let is_missing = matches!(
        error,
        ServiceError::ModelUnavailable { .. }
            | ServiceError::ModelOnItsWay { .. }
            | ServiceError::ModelNotFound { .. }
    );
    is_missing && inner.nodes.is_some() && !job.stays
}

/// A place in the engine. There is a slot for the job, so a full engine is one whose last job is just leaving, or one whose
/// jobs hold as many bytes of images as it takes. The inputs come back unless the job had to wait: whoever waits holds no
/// image, decoded or not.
///
/// Those who wait stand in a line, so that small images do not pass large ones for ever.
async fn place(
    inner: &Inner,
    job: &Job,
    pending: PendingInputs,
) -> Result<(Place, Option<PendingInputs>), AttemptError> {
    let needed = pending.image_bytes(job);
    let mut pending = Some(pending);
    let _turn = match inner.door.try_lock() {
        Ok(turn) => turn,
        Err(_) => {
            pending = None;
            let turn = inner.door.lock().await;
            check_ours(inner, job).await?;
            turn
        }
    };
    loop {
        match inner.engine.reserve(needed) {
            Ok(place) => return Ok((place, pending)),
            Err(EngineError::MemoryFull(full)) if !full.is_hopeless() && inner.admitted.give_up_one() => {}
            Err(error) if error.kind() == ErrorKind::Overloaded => {
                pending = None;
                inner.clock.sleep_until(inner.clock.now() + ADMIT_AGAIN).await;
                check_ours(inner, job).await?;
            }
            Err(error) => return Err(engine_fault(job.id, &error).into()),
        }
    }
}

/// Whether the job still runs in this attempt: nobody tells an attempt that is not in the engine of a cancel.
async fn check_ours(inner: &Inner, job: &Job) -> Result<(), AttemptError> {
    match inner.store.get(job.id).await {
        Ok(Some(now)) if now.state == JobState::Running && now.attempt == job.attempt => Ok(()),
        Ok(_) => Err(AttemptError::NotOurs),
        Err(error) => {
            // The end of the attempt finds it out.
            tracing::warn!(job = %job.id, error = describe_chain(&error), "a job cannot be read");
            Ok(())
        }
    }
}

/// Logs the whole chain and keeps what a caller may see. Texts of the engine's own errors name no path.
fn engine_fault(id: JobId, error: &EngineError) -> Fault {
    let kind = error.kind().as_str();
    if error.is_permanent() {
        // The loader has said it once, and every job of such a model ends so.
        tracing::debug!(job = %id, kind, error = describe_chain(error), "the model cannot be loaded");
    } else {
        tracing::error!(job = %id, kind, error = describe_chain(error), "the engine failed");
    }
    let message = if let EngineError::Executor(cause) = error {
        cause.message()
    } else {
        error.to_string()
    };
    let lost_device = matches!(error, EngineError::Executor(ExecutorError::DeviceLost { .. }));
    Fault {
        permanent: error.is_permanent() || !error.kind().is_retryable(),
        lost_device,
        ..Fault::of_kind(error.kind(), message)
    }
}

/// The same for errors of the service, whose texts are made for callers.
fn service_fault(id: JobId, error: &ServiceError) -> Fault {
    tracing::error!(job = %id, kind = error.kind().as_str(), error = describe_chain(error), "the job failed");
    Fault::of_kind(error.kind(), error.to_string())
}
