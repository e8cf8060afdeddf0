//! Fetch, wait and cancel.

use std::sync::{Arc, PoisonError};

use pentimento_jobs::{JobsError, Refusal, Transition};
use pentimento_types::{ImageKey, InputRole, Job, JobId, JobState, describe_chain};

use crate::inner::{Inner, Lifecycle};
use crate::{Service, ServiceError};

impl Service {
    /// The job as it is now.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`].
    pub async fn fetch(&self, id: JobId) -> Result<Job, ServiceError> {
        let job = self.inner.store.get(id).await;
        job.map_err(ServiceError::store("read the job"))?
            .ok_or(ServiceError::JobNotFound { id })
    }

    /// Returns the job once it has ended, however it ended; see [`crate::finished_images`].
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`]; [`ServiceError::ShuttingDown`] where the job goes on with the next start.
    pub async fn wait(&self, id: JobId) -> Result<Job, ServiceError> {
        self.inner.wait(id, false).await
    }

    /// The same for a synchronous dialect: when this future is dropped before the job has ended and nobody else is
    /// waiting for the job, the job is cancelled.
    ///
    /// # Errors
    /// As [`Service::wait`].
    pub async fn wait_or_cancel(&self, id: JobId) -> Result<Job, ServiceError> {
        self.inner.wait(id, true).await
    }

    /// Cancels a job that has not ended; cancelling twice is fine.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`], or [`ServiceError::JobEnded`] for one that succeeded or failed.
    pub async fn cancel(&self, id: JobId) -> Result<Job, ServiceError> {
        self.inner.cancel(id).await
    }
}

impl Inner {
    async fn wait(self: &Arc<Self>, id: JobId, cancel_if_last: bool) -> Result<Job, ServiceError> {
        let waiting = Waiting::new(Arc::clone(self), id, cancel_if_last);
        let ended = tokio::select! {
            biased;
            ended = self.store.wait_until_ended(id) => ended,
            () = self.stopped(), if self.store.keeps_jobs() => {
                // It goes on with the next start, for whoever asks then.
                waiting.done();
                return Err(ServiceError::ShuttingDown);
            }
        };
        waiting.done();
        match ended {
            Ok(job) => Ok(job),
            Err(JobsError::NotFound { id }) => Err(ServiceError::JobNotFound { id }),
            Err(error) => Err(ServiceError::store("wait for the job")(error)),
        }
    }

    pub(crate) async fn cancel(&self, id: JobId) -> Result<Job, ServiceError> {
        match self.transition(id, Transition::Cancel).await {
            Ok(job) => {
                tracing::info!(job = %id, "cancelled");
                self.engine.cancel(id);
                self.clear_away(&job).await;
                Ok(job)
            }
            Err(JobsError::NotFound { id }) => Err(ServiceError::JobNotFound { id }),
            Err(JobsError::Refused(refused)) if refused.reason == Refusal::Ended => {
                let job = self
                    .store
                    .get(id)
                    .await
                    .map_err(ServiceError::store("read the job"))?;
                let job = job.ok_or(ServiceError::JobNotFound { id })?;
                if job.state == JobState::Cancelled {
                    Ok(job)
                } else {
                    Err(ServiceError::JobEnded { id, state: job.state })
                }
            }
            Err(error) => Err(ServiceError::store("cancel the job")(error)),
        }
    }

    /// Forgets what is held for a job that has ended without a worker.
    pub(crate) async fn clear_away(&self, job: &Job) {
        let id = job.id;
        self.progress.forget(id);
        drop(self.admitted.take(id));
        if let Err(error) = self.queue.forget(id).await {
            // A worker will find that the job has ended.
            tracing::debug!(job = %id, error = describe_chain(&error), "still queued");
        }
        self.delete_input_of_ended(job).await;
    }

    /// The inputs of a job that has ended. Those of another machine's job are deleted by that machine, when it hears of the end:
    /// one that is cut off from the others may run its job again, and its end is the one that counts.
    pub(crate) async fn delete_input_of_ended(&self, job: &Job) {
        if self.store.is_ours(job) {
            self.delete_input(job.id).await;
        }
    }

    /// Inputs are kept until their job ends. A failure here is cleared up by the sweeper.
    pub(crate) async fn delete_input(&self, id: JobId) {
        let inputs = InputRole::ALL.iter().map(|role| ImageKey::input(id, *role));
        for key in inputs.chain(self.signer.is_some().then(|| ImageKey::sent(id))) {
            if let Err(error) = self.images.delete(&key).await {
                tracing::warn!(%key, error = describe_chain(&error), "an input picture could not be deleted");
            }
        }
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<JobId, usize>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller who waits for a job.
#[derive(Debug)]
pub(crate) struct Waiting {
    inner: Arc<Inner>,
    id: JobId,
    cancel_if_last: bool,
}

impl Waiting {
    pub(crate) fn new(inner: Arc<Inner>, id: JobId, cancel_if_last: bool) -> Self {
        *inner.waiters().entry(id).or_default() += 1;
        Self {
            inner,
            id,
            cancel_if_last,
        }
    }

    fn done(mut self) {
        self.cancel_if_last = false;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let nobody_else = {
            let mut waiters = self.inner.waiters();
            let left = waiters.get(&self.id).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                waiters.remove(&self.id);
            } else {
                waiters.insert(self.id, left);
            }
            left == 0
        };
        // A connection that is closed because the server stops is no caller who hangs up.
        let hung_up = self.cancel_if_last && self.inner.lifecycle() != Lifecycle::Stopped;
        if hung_up && nobody_else {
            let (inner, id) = (Arc::clone(&self.inner), self.id);
            self.inner.runtime.spawn(async move {
                // Somebody may have come since, who asks for the same job.
                if inner.waiters().contains_key(&id) {
                    return;
                }
                tracing::info!(job = %id, "the only caller who waited is gone");
                // It may have ended in the meantime, which is as good.
                let _ = inner.cancel(id).await;
            });
        }
    }
}
