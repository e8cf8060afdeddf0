//! Deadlines: a job that has not ended by its own is given up, so that nobody waits for ever and nothing is made that nobody
//! waits for. One that waits is failed here or by the worker that claims it, and is never begun; one that an attempt has in hand
//! is ended by the engine, between two acts of the device. One whose attempt is gone is ended here like one that waits, unless
//! its pictures are all there.
//!
//! A deadline is part of the job's record, so that it holds across restarts.

use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::JobsError;
use pentimento_types::{JobState, describe_chain};

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
        // The deadline of another machine's job was written by its clock, and that machine looks at it.
        let Some(deadline) = job.deadline.filter(|_| inner.store.is_ours(&job)) else {
            continue;
        };
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
