//! Deadlines: a job that has not ended by its own is given up, so that nobody waits for ever and nothing is made that nobody
//! waits for. One that waits is failed here or by the worker that claims it, and is never begun; one that an attempt has in hand
//! is ended by the engine, between two acts of the device. One whose attempt is gone is ended here like one that waits, unless
//! its pictures are all there.
//!
//! A deadline is part of the job's record, so that it holds across restarts.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pentimento_jobs::JobsError;
use pentimento_types::{ErrorKind, Job, JobFailure, JobState, describe_chain};

use crate::inner::Inner;
use crate::{attempt, maintenance};

/// After a look that failed, on a disk that is full for example.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Between two looks, however close the next deadline is.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// Ends the jobs beyond their deadlines that nobody runs, until the service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        let pause = match give_up_late(&inner).await {
            Ok(pause) => pause.max(LEAST_PAUSE),
            Err(error) => {
                tracing::warn!(
                    error = describe_chain(&error),
                    "the deadlines could not be looked at"
                );
                LOOK_AGAIN
            }
        };
        let next = inner.clock.now() + pause;
        tokio::select! {
            () = inner.clock.sleep_until(next) => {}
            () = inner.stopped() => return,
        }
    }
}

/// Ends what is late and not being run. Returns how long no deadline comes.
async fn give_up_late(inner: &Inner) -> Result<Duration, JobsError> {
    let now = inner.aged_now();
    // Of the jobs that are stored from now on.
    let mut soonest = inner.config.job_deadline;
    for job in maintenance::unfinished(inner).await? {
        let Some(deadline) = job.deadline else { continue };
        match deadline.duration_since(now) {
            Ok(left) if !left.is_zero() => soonest = soonest.min(left),
            // The engine ends it.
            _ if job.state == JobState::Running && inner.attempts.contains(job.id) => {}
            _ => match attempt::end_late(inner, &job).await {
                // It has begun or ended in the meantime.
                Ok(()) | Err(JobsError::Refused(_) | JobsError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(soonest)
}

/// Why a job has failed whose deadline came.
pub(crate) fn too_late(job: &Job) -> JobFailure {
    let allowed = job
        .deadline
        .and_then(|deadline| deadline.duration_since(job.created_at).ok())
        .unwrap_or_default();
    JobFailure {
        kind: ErrorKind::DeadlineExceeded,
        message: format!(
            "the job had not ended {} s after it was accepted, which is as long as this server lets a job wait and \
             run; send the request again, or ask for less",
            allowed.as_secs()
        ),
    }
}

impl Inner {
    /// When a job that is stored now is given up; None is beyond all time.
    pub(crate) fn deadline_of_new(&self, job: &Job) -> Option<SystemTime> {
        job.created_at.checked_add(self.config.job_deadline)
    }

    /// Whether its deadline has come.
    pub(crate) fn is_late(&self, job: &Job) -> bool {
        job.deadline.is_some_and(|deadline| deadline <= self.aged_now())
    }

    /// The job's deadline on the clock that does not jump.
    pub(crate) fn deadline_of(&self, job: &Job) -> Option<Instant> {
        let left = job.deadline?.duration_since(self.aged_now()).unwrap_or_default();
        self.clock.now().checked_add(left)
    }

    /// Returns when the job's deadline has come.
    pub(crate) async fn deadline_comes(&self, job: &Job) {
        match self.deadline_of(job) {
            Some(deadline) => self.clock.sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}
