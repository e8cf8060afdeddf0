//! The jobs of one owner: listed, looked at, cancelled and deleted. A job of another owner is as unknown as one that never was.

use pentimento_jobs::JobFilter;
use pentimento_types::{ApiKeyId, Job, JobId, JobState};

use crate::inner::image_key;
use crate::{Service, ServiceError};

/// Some jobs, the newest first.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// At most as many as asked for.
    pub jobs: Vec<Job>,
    /// Whether there are older ones.
    pub has_more: bool,
}

impl Service {
    /// The newest `limit` jobs of an owner that are in one of these states (empty is any) and older than `after`.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub async fn list_own(
        &self,
        owner: &ApiKeyId,
        states: Vec<JobState>,
        (after, limit): (Option<JobId>, usize),
    ) -> Result<JobPage, ServiceError> {
        let filter = JobFilter {
            states,
            owner: Some(owner.clone()),
            after,
            newest_first: true,
            limit: limit.saturating_add(1),
        };
        let jobs = self.inner.store.list(&filter).await;
        let mut jobs = jobs.map_err(ServiceError::store("list the jobs"))?;
        let has_more = jobs.len() > limit;
        jobs.truncate(limit);
        Ok(JobPage { jobs, has_more })
    }

    /// The job as it is now.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`], also for a job of another owner.
    pub async fn fetch_own(&self, owner: &ApiKeyId, id: JobId) -> Result<Job, ServiceError> {
        let job = self.fetch(id).await?;
        if job.owner == *owner {
            Ok(job)
        } else {
            Err(ServiceError::JobNotFound { id })
        }
    }

    /// Cancels a job that has not ended; cancelling twice is fine. It leaves the device before its next act.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`], also for a job of another owner, or [`ServiceError::JobEnded`] for one that succeeded or
    /// failed.
    pub async fn cancel_own(&self, owner: &ApiKeyId, id: JobId) -> Result<Job, ServiceError> {
        self.fetch_own(owner, id).await?;
        self.cancel(id).await
    }

    /// Deletes a job with its pictures and all that is known of it, after cancelling it where it has not ended. Its links lead
    /// nowhere from then on.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`], also for a job of another owner; [`ServiceError::Store`] when a picture could not be
    /// deleted, and then the job is still there.
    pub async fn delete_own(&self, owner: &ApiKeyId, id: JobId) -> Result<(), ServiceError> {
        let job = self.fetch_own(owner, id).await?;
        if !job.state.is_final() {
            match self.cancel(id).await {
                // It has ended by itself in the meantime.
                Ok(_) | Err(ServiceError::JobEnded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.inner
            .delete_outputs(&job)
            .await
            .map_err(ServiceError::store("delete the pictures"))?;
        self.inner.delete_input(id).await;
        let removed = self.inner.store.remove(id).await;
        removed.map_err(ServiceError::store("delete the job"))?;
        tracing::info!(job = %id, "deleted");
        Ok(())
    }
}

impl crate::inner::Inner {
    /// Deletes the pictures of a job, whether they were made or not.
    pub(crate) async fn delete_outputs(&self, job: &Job) -> Result<(), pentimento_storage::StorageError> {
        for index in 0..job.recipe.image_count {
            self.images.delete(&image_key(job, index)).await?;
        }
        Ok(())
    }
}
