//! What an operator clears: the jobs that wait, and the models in memory that nobody uses.

use pentimento_jobs::JobFilter;
use pentimento_types::{ApiKeyId, JobState};

use crate::off_thread::off_thread;
use crate::{Service, ServiceError};

/// What has left memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Names of the checkpoints of which nothing is in memory any more.
    pub models: Vec<String>,
    /// Bytes of all that left, also of models of which a part is in use.
    pub freed_bytes: u64,
}

impl Service {
    /// Cancels the jobs of one owner that wait, or those of all owners, and says how many those were. What runs goes on; a job
    /// whose turn comes at this very moment may be on either side.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub async fn clear_queue(&self, owner: Option<&ApiKeyId>) -> Result<usize, ServiceError> {
        let filter = JobFilter {
            states: vec![JobState::Fetching, JobState::Queued],
            owner: owner.cloned(),
            ..JobFilter::default()
        };
        let waiting = self.inner.store.list(&filter).await;
        let waiting = waiting.map_err(ServiceError::store("list the jobs"))?;
        let mut cancelled = 0;
        // The last first, or each cancelled one would let the next begin.
        for job in waiting.into_iter().rev() {
            let now = self.inner.store.get(job.id).await;
            let now = now.map_err(ServiceError::store("read the job"))?;
            if !now.is_some_and(|job| filter.states.contains(&job.state)) {
                continue;
            }
            match self.cancel(job.id).await {
                Ok(_) => cancelled += 1,
                // It has ended by itself, or was forgotten.
                Err(ServiceError::JobEnded { .. } | ServiceError::JobNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        tracing::info!(jobs = cancelled, "the queue was cleared");
        Ok(cancelled)
    }

    /// Throws out of memory every model that no job uses and that the catalogue does not pin. Files on the disk stay.
    ///
    /// # Errors
    /// [`ServiceError::Internal`].
    pub async fn clear_memory(&self) -> Result<Cleared, ServiceError> {
        let engine = self.inner.engine.clone();
        let before = engine.resident_models();
        // Giving gigabytes back takes a while.
        let freed_bytes = off_thread(move || Ok(engine.evict_idle())).await?;
        let after = self.inner.engine.resident_models();
        let models = before.into_iter().filter(|name| !after.contains(name)).collect();
        Ok(Cleared { models, freed_bytes })
    }
}
