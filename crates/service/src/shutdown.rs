//! The end: nothing new is taken, accepted jobs get their time, and the rest is told why it will not be made.

use std::time::Duration;

use pentimento_jobs::Transition;
use pentimento_types::{ErrorKind, JobFailure, JobId, describe_chain};
use tokio::task::JoinSet;

use crate::Service;
use crate::inner::{Inner, Lifecycle};
use crate::maintenance::unfinished;

impl Service {
    /// Takes nothing new, lets accepted jobs end for at most `grace`, fails the rest with a reason, then stops the
    /// workers and the engine. Returns when all of that is done; a second call waits for the same end.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.inner;
        inner.lifecycle.send_if_modified(|lifecycle| {
            let first = *lifecycle == Lifecycle::Open;
            if first {
                *lifecycle = Lifecycle::Draining;
            }
            first
        });
        // Whoever was storing a job has stored it after this; whoever comes later sees that.
        drop(inner.admission.write().await);
        inner.drain(grace).await;
        inner.fail_the_rest().await;
        inner.lifecycle.send_replace(Lifecycle::Stopped);
        inner.engine.shutdown(Duration::ZERO).await;
        let tasks = std::mem::take(&mut *inner.tasks());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the service had ended badly");
            }
        }
    }
}

impl Inner {
    /// Returns when every accepted job has ended or the time is over.
    async fn drain(&self, grace: Duration) {
        let deadline = self.clock.now() + grace;
        let mut ends = JoinSet::new();
        for id in self.open_jobs().await {
            let store = std::sync::Arc::clone(&self.store);
            ends.spawn(async move { store.wait_until_ended(id).await.is_ok() });
        }
        let all = async { while ends.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = self.clock.sleep_until(deadline) => tracing::warn!("jobs are left at the end of the grace"),
        }
    }

    /// The records live no longer than the process, so jobs that cannot be finished fail now, and who waits is told.
    async fn fail_the_rest(&self) {
        for id in self.open_jobs().await {
            let Ok(Some(job)) = self.store.get(id).await else {
                continue;
            };
            let failure = JobFailure {
                kind: ErrorKind::Unavailable,
                message: "the server was stopped before the job was finished; send it again".to_owned(),
            };
            let fail = Transition::Fail {
                attempt: job.attempt,
                failure,
            };
            match self.transition(id, fail).await {
                Ok(_) => tracing::warn!(job = %id, "given up"),
                Err(error) => tracing::debug!(job = %id, error = describe_chain(&error), "ended by itself"),
            }
            self.engine.cancel(id);
            self.delete_input(id).await;
        }
    }

    async fn open_jobs(&self) -> Vec<JobId> {
        let unfinished = unfinished(self).await.unwrap_or_else(|error| {
            tracing::error!(error = describe_chain(&error), "the jobs cannot be read");
            Vec::new()
        });
        unfinished.into_iter().map(|job| job.id).collect()
    }
}
