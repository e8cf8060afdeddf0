//! The only way in which this crate changes a job, so that every end is counted, whoever brought it about.

use pentimento_jobs::{JobsError, Transition};
use pentimento_types::{Job, JobId};

use crate::inner::Inner;

impl Inner {
    /// Changes a job, tells those who watch it, and counts it when that was its end.
    pub(crate) async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let job = self.store.transition(id, transition).await?;
        self.watched.note(&job);
        if job.state.is_final() {
            self.metrics.ended(&job);
        }
        Ok(job)
    }
}
