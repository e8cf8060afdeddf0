//! The end: nothing new is taken, running jobs get their time. What is left then waits for the next start, where the records
//! outlive the process, and otherwise is told why it will not be made.

use std::time::{Duration, Instant};

use pentimento_jobs::{JobFilter, JobsError, Transition};
use pentimento_types::{ErrorKind, Job, JobFailure, JobId, JobState, describe_chain};

use crate::Service;
use crate::inner::{Inner, Lifecycle};
use crate::maintenance::unfinished;

/// What the jobs that are just being stored get at least, whatever the grace is: their callers are about to hear of them.
const STORING: Duration = Duration::from_secs(1);
/// Between two looks whether everything has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Service {
    /// Takes nothing new and lets jobs end for at most `grace`: all accepted ones where the store forgets them with the
    /// process, and else those that run. Fails or leaves the rest, then stops the workers and the engine. Returns when all
    /// of that is done; a second call waits for the same end, also when the first was dropped.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.inner;
        inner.lifecycle.send_if_modified(|lifecycle| {
            let first = *lifecycle == Lifecycle::Open;
            if first {
                *lifecycle = Lifecycle::Draining;
            }
            first
        });
        let deadline = inner.clock.now() + grace;
        inner.let_store(deadline).await;
        inner.drain(deadline).await;
        if inner.store.keeps_jobs() {
            inner.lifecycle.send_replace(Lifecycle::Stopped);
            inner.leave_the_rest().await;
        } else {
            inner.fail_the_rest().await;
            inner.lifecycle.send_replace(Lifecycle::Stopped);
        }
        inner.engine.shutdown(Duration::ZERO).await;
        // Each stays in the set until it has ended: whoever waits may be dropped.
        let mut tasks = inner.tasks.lock().await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the service had ended badly");
            }
        }
    }
}

impl Inner {
    /// Whoever was storing a job has stored it after this; whoever comes later sees that. A disk that does not answer is not
    /// waited for beyond the time: what is stored after it waits for the next start.
    async fn let_store(&self, deadline: Instant) {
        let at_least = self.clock.now() + STORING;
        tokio::select! {
            biased;
            stored = self.admission.write() => drop(stored),
            () = self.clock.sleep_until(deadline.max(at_least)) => {
                tracing::warn!("jobs are still being stored at the end of the grace");
            }
        }
    }

    /// Returns when everything that is to end has ended, or the time is over.
    async fn drain(&self, deadline: Instant) {
        while !self.is_drained().await {
            let now = self.clock.now();
            if now >= deadline {
                tracing::warn!("jobs are left at the end of the grace");
                return;
            }
            self.clock.sleep_until(deadline.min(now + LOOK_AGAIN)).await;
        }
    }

    async fn is_drained(&self) -> bool {
        if self.store.keeps_jobs() {
            return self.at_work().await.is_ok_and(|jobs| jobs.is_empty());
        }
        let counts = self.store.counts().await;
        counts.is_ok_and(|counts| counts.queued + counts.running == 0)
    }

    /// The jobs with which this process does something: it runs them, or fetches their images.
    async fn at_work(&self) -> Result<Vec<Job>, JobsError> {
        let filter = JobFilter {
            states: vec![JobState::Fetching, JobState::Running],
            ..JobFilter::default()
        };
        let mut jobs = self.store.list(&filter).await?;
        jobs.retain(|job| self.store.is_ours(job));
        Ok(jobs)
    }

    /// Running jobs wait for the next start, which costs them nothing. What fetched images are to be is known to this
    /// process alone.
    async fn leave_the_rest(&self) {
        for job in logged(self.at_work().await) {
            if job.state == JobState::Fetching {
                self.give_up(job.id).await;
                continue;
            }
            let put_back = Transition::PutBack { attempt: job.attempt };
            match self.transition(job.id, put_back).await {
                Ok(_) => tracing::info!(job = %job.id, "left for the next start"),
                Err(error) => {
                    tracing::debug!(job = %job.id, error = describe_chain(&error), "ended by itself")
                }
            }
            self.engine.cancel(job.id);
        }
    }

    /// The records live no longer than the process, so jobs that cannot be finished fail now, and who waits is told.
    async fn fail_the_rest(&self) {
        for job in logged(unfinished(self).await) {
            self.give_up(job.id).await;
        }
    }

    async fn give_up(&self, id: JobId) {
        // An attempt may have begun since the list was made.
        let Ok(Some(job)) = self.store.get(id).await else {
            return;
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

fn logged(jobs: Result<Vec<Job>, JobsError>) -> Vec<Job> {
    jobs.unwrap_or_else(|error| {
        tracing::error!(error = describe_chain(&error), "the jobs cannot be read");
        Vec::new()
    })
}
