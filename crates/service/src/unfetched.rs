//! Jobs whose images are still on their way when their caller stops waiting: they have a record and an id already, and
//! are queued when the images are there, or fail with the reason why they are not.
//!
//! The record is made only when the caller's time is over, so that a request that fails before is refused and leaves
//! nothing behind. What the images come from is known to this process alone: the sweeper fails such jobs where the process that
//! fetched for them is gone, or could not say how that ended.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use pentimento_engine::ResolvedModels;
use pentimento_jobs::{Inserted, JobsError, QueueEntry, Transition};
use pentimento_types::{
    ErrorKind, HasKind as _, ImageKey, InputRole, Job, JobFailure, JobId, JobState, describe_chain,
};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::admitted::Admitted;
use crate::device_time::DeviceTime;
use crate::inner::Inner;
use crate::job_marks::Mark;
use crate::submit::{Checked, Planned, Submission, Unfinished, goes_on_alone, keep_everything, size_of};
use crate::{Service, ServiceError};

/// What a caller's bytes are accounted with; dropped when the service has no need of them any more.
pub type Held = Box<dyn Any + Send>;

/// The images of a request, being fetched and decoded.
type Arriving = JoinHandle<Result<Vec<(InputRole, Checked)>, ServiceError>>;

impl Service {
    /// As [`Service::submit`], but where images are at addresses that have not answered at `until`, a time of the service's
    /// clock, the job's id is given out without them. It is then fetched like any job, is cancelled like any job, and
    /// fails when an image cannot be used.
    ///
    /// # Errors
    /// As [`Service::submit`], for everything that is found out before `until`.
    pub async fn submit_until(
        &self,
        submission: Submission,
        until: Instant,
        held: Held,
    ) -> Result<JobId, ServiceError> {
        let inner = &self.inner;
        if let Some(known) = inner.known(&submission).await? {
            return Ok(known);
        }
        let (submission, planned) = inner.check(submission).await?;
        // In a task of its own, which can go on without the caller.
        let images = inner.check_images(&submission).in_current_span();
        let mut images = Aborting(inner.runtime.spawn(images));
        let checked = tokio::select! {
            biased;
            checked = &mut images.0 => Some(checked),
            // Files that came with the request are only decoded, which takes a moment.
            () = inner.clock.sleep_until(until), if submission.has_addresses() => None,
        };
        match checked {
            Some(checked) => {
                let checked = checked.map_err(ServiceError::internal)??;
                inner.accept(submission, planned, checked).await
            }
            None => inner.accept_unfetched(submission, planned, (images, held)).await,
        }
    }
}

impl Inner {
    /// Stores the job without its images, and goes on waiting for them.
    async fn accept_unfetched(
        self: &Arc<Self>,
        submission: Submission,
        planned: Planned,
        (images, held): (Aborting, Held),
    ) -> Result<JobId, ServiceError> {
        let admission = self.admission_while_open().await?;
        let id = JobId::new();
        let unfinished = Unfinished::new(self, id);
        let keys = submission.inputs.map(|role, _| ImageKey::input(id, role));
        let size = submission.expected_size();
        let Planned {
            models,
            time,
            notes,
            place,
        } = planned;
        let expected = time.expected(&models, &submission.recipe, size);
        let owner = submission.owner.clone();
        let draw = submission.number;
        let mut job = Job {
            state: JobState::Fetching,
            work: time.work(&submission.recipe, size),
            ..submission.into_job(id, self.clock.wall(), (keys, notes))
        };
        job.deadline = self.deadline_of_new(&job);
        let goes_on = goes_on_alone(&job);
        let inner = Arc::clone(self);
        let accepted = self.to_its_end(async move {
            let _admission = admission;
            let mark = inner.fetching.mark(id);
            if let Inserted::Known(first) = inner.insert(job, place, draw).await? {
                return Ok((first, None));
            }
            inner.progress.expect(id, owner, expected);
            inner.go_on_fetching((id, mark), (models, time), (images, held));
            Ok((id, unfinished.unless(goes_on)))
        });
        accepted.await
    }

    /// In a task that fails the job if it panics.
    fn go_on_fetching(
        self: &Arc<Self>,
        (id, mark): (JobId, Mark),
        planned: (ResolvedModels, DeviceTime),
        (images, held): (Aborting, Held),
    ) {
        let (inner, taking) = (Arc::clone(self), Arc::clone(self));
        self.runtime.spawn(async move {
            let _mark = mark;
            let taken = inner
                .runtime
                .spawn(async move { taking.take_in(id, planned, images).await });
            if let Err(panic) = taken.await {
                tracing::error!(job = %id, %panic, "taking images in panicked");
                let failure = failure_of(&ServiceError::internal(panic));
                inner.fail_unfetched(id, failure).await;
            }
            drop(held);
        });
    }

    /// Waits for the images of a stored job and queues it; or fails it. Returns early when it has ended, cancelled for
    /// example, which ends the fetching too.
    async fn take_in(
        self: &Arc<Self>,
        id: JobId,
        planned: (ResolvedModels, DeviceTime),
        mut images: Aborting,
    ) {
        let checked = tokio::select! {
            checked = &mut images.0 => checked,
            _ = self.store.wait_until_ended(id) => return,
        };
        let checked = checked.map_err(ServiceError::internal);
        let queued = match checked.and_then(|checked| checked) {
            Ok(checked) => self.queue_fetched(id, planned, checked).await,
            Err(error) => Err(error),
        };
        if let Err(error) = queued {
            tracing::info!(job = %id, error = describe_chain(&error), "the images did not come");
            self.fail_unfetched(id, failure_of(&error)).await;
        }
    }

    async fn queue_fetched(
        &self,
        id: JobId,
        (models, time): (ResolvedModels, DeviceTime),
        checked: Vec<(InputRole, Checked)>,
    ) -> Result<(), ServiceError> {
        let found = self.store.get(id).await;
        let Some(mut job) = found.map_err(ServiceError::store("read the job"))? else {
            // Cancelled, and forgotten since.
            return Ok(());
        };
        // The record was made with a size that was a guess.
        let size = size_of(&job.inputs, &checked)?;
        let keeps_everything = keep_everything(&checked);
        job.recipe.keeps_everything = keeps_everything;
        let work = time.work(&job.recipe, size);
        let expected = time.expected(&models, &job.recipe, size);
        let stored = self.store_inputs((id, &job.inputs), checked).await?;
        self.admitted.keep(
            id,
            Admitted {
                models,
                images: stored.decoded,
            },
        );
        self.progress.expect(id, job.owner, expected);
        let notes = stored.notes;
        let fetched = Transition::Fetched {
            notes,
            work,
            keeps_everything,
        };
        match self.transition(id, fetched).await {
            Ok(job) => {
                self.push(QueueEntry::of(&job)).await;
                Ok(())
            }
            // Cancelled in the last moment.
            Err(JobsError::Refused(_) | JobsError::NotFound { .. }) => {
                drop(self.admitted.take(id));
                self.progress.forget(id);
                self.delete_input(id).await;
                Ok(())
            }
            Err(error) => {
                drop(self.admitted.take(id));
                Err(ServiceError::store("queue the job")(error))
            }
        }
    }

    /// Fails a job that was found being fetched if nobody fetches for it any more.
    pub(crate) async fn fail_if_lost(&self, id: JobId) -> Result<(), JobsError> {
        // A mark is gone only when the next state is stored, or never will be. So the record is read after the look.
        if self.fetching.contains(id) {
            return Ok(());
        }
        let job = self.store.get(id).await?;
        if job.is_some_and(|job| job.state == JobState::Fetching) {
            tracing::warn!(job = %id, "nobody fetches the images of a job any more");
            let failure = JobFailure {
                kind: ErrorKind::Unavailable,
                message: "the server lost the pictures on their way; send the request again".to_owned(),
            };
            self.fail_unfetched(id, failure).await;
        }
        Ok(())
    }

    async fn fail_unfetched(&self, id: JobId, failure: JobFailure) {
        let fail = Transition::Fail { attempt: 0, failure };
        if let Err(error) = self.transition(id, fail).await {
            tracing::info!(job = %id, error = describe_chain(&error), "the end came too late");
        }
        self.progress.forget(id);
        self.delete_input(id).await;
    }
}

fn failure_of(error: &ServiceError) -> JobFailure {
    JobFailure {
        kind: error.kind(),
        message: with_role(error),
    }
}

/// Says which image a failure is about, since nothing else tells it once it is stored.
fn with_role(error: &ServiceError) -> String {
    if let ServiceError::OfInput { role, fault } = error {
        return format!("{}: {fault}", role.as_str());
    }
    if matches!(error, ServiceError::Internal { .. } | ServiceError::Store { .. }) {
        return error.to_string();
    }
    format!("{}: {error}", InputRole::Init.as_str())
}

/// Ends its task when it is dropped.
struct Aborting(Arriving);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
