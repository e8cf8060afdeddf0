//! Jobs that are deleted: the cluster is told at once, or when the broker is there again.

use pentimento_jobs::JobsError;
use pentimento_types::{Job, JobId, describe_chain};

use crate::bucket::NotWritten;
use crate::names;
use crate::shared::Shared;
use crate::subjects::{job_key, number_key, request_key};

impl Shared {
    /// Takes a job that has ended out of everything that the cluster knows. False where the cluster hears of it later.
    pub(crate) async fn forget(&self, id: JobId, job: Option<&Job>) -> bool {
        let seen = self.mirror.remove(id);
        let job = job.or_else(|| seen.as_ref().map(|seen| seen.job.as_ref()));
        let names = job.map(names_of).unwrap_or_default();
        self.deletions.add(id, names.clone());
        if let Err(error) = self.tell_deletion(id, &names).await {
            tracing::debug!(job = %id, error = describe_chain(&error), "the cluster forgets it later");
            return false;
        }
        true
    }

    /// Tells the cluster of every deletion that it does not know of.
    pub(crate) async fn tell_deletions(&self) -> Result<(), JobsError> {
        let open = self.deletions.open();
        for (id, names) in &open {
            self.tell_deletion(*id, names).await?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.deletions.tidy().await
    }

    /// Deletes a job in the bucket, and gives its names back.
    async fn tell_deletion(&self, id: JobId, keys: &[String]) -> Result<(), JobsError> {
        let rooms = self.connection.rooms().await?;
        match rooms.jobs.delete(&job_key(id), None).await {
            Ok(()) | Err(NotWritten::Conflict) => {}
            Err(NotWritten::Failed(error)) => return Err(error),
        }
        for key in keys {
            names::give_back(&rooms.names, key, id).await;
        }
        self.deletions.told(id);
        Ok(())
    }
}

/// The keys of the names that a job has.
pub(crate) fn names_of(job: &Job) -> Vec<String> {
    let request = job.idempotency.as_ref();
    let request = request.map(|request| request_key(&job.owner, &request.key));
    let number = job.dialect.number;
    let number = number.map(|number| number_key(&job.dialect.name, number));
    request.into_iter().chain(number).collect()
}
