//! Deadlines: a job that has not ended by its own is given up, so that nobody waits for ever and nothing is made that nobody
//! waits for. One that waits is failed here or by the worker that claims it, and is never begun; one that an attempt has in hand
//! is ended by the engine, between two acts of the device. One whose attempt is gone is ended here like one that waits, unless
//! its pictures are all there.
//!
//! A deadline is part of the job's record, so that it holds across restarts.

use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::JobsError;
use pentimento_types::{Job, JobState, describe_chain};
use tokio::task::JoinSet;

use crate::inner::Inner;
use crate::job_marks::JobMarks;
use crate::{attempt, maintenance};

/// After a look that failed, on a disk that is full for example, and while a late job is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Between two looks, however close the next deadline is.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// Late jobs that are ended at the same time.
const ENDINGS: usize = 8;
/// Until there may be room for more of them.
const UNTIL_ROOM: Duration = Duration::from_secs(1);

/// Late jobs that are being ended, each in a task of its own: a store may take minutes to say whether a job's pictures are there,
/// and the deadlines of others come meanwhile.
#[derive(Debug, Default)]
struct Endings {
    tasks: JoinSet<()>,
    jobs: JobMarks,
}

impl Endings {
    /// Begins with one, unless it was begun with before. Says whether there was room for it.
    fn begin(&mut self, inner: &Arc<Inner>, job: Job) -> bool {
        while self.tasks.try_join_next().is_some() {}
        if self.jobs.contains(job.id) {
            return true;
        }
        if self.tasks.len() >= ENDINGS {
            return false;
        }
        let (inner, mark) = (Arc::clone(inner), self.jobs.mark(job.id));
        self.tasks.spawn(async move {
            let _mark = mark;
            match attempt::end_late(&inner, &job).await {
                // It has begun or ended in the meantime.
                Ok(()) | Err(JobsError::Refused(_) | JobsError::NotFound { .. }) => {}
                Err(error) => {
                    tracing::warn!(job = %job.id, error = describe_chain(&error), "a late job cannot be ended yet");
                }
            }
        });
        true
    }
}

/// Ends the jobs beyond their deadlines that nobody runs, until the service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut endings = Endings::default();
    loop {
        let pause = match give_up_late(&inner, &mut endings).await {
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

/// Begins to end what is late and not being run. Returns when to look again: how long no deadline comes, at most.
async fn give_up_late(inner: &Arc<Inner>, endings: &mut Endings) -> Result<Duration, JobsError> {
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
            _ => {
                let has_begun = endings.begin(inner, job);
                soonest = soonest.min(if has_begun { LOOK_AGAIN } else { UNTIL_ROOM });
            }
        }
    }
    Ok(soonest)
}
