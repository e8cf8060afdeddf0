//! When a job is late, and what is said of one.

use std::time::{Instant, SystemTime};

use pentimento_types::{ErrorKind, Job, JobFailure};

use crate::inner::Inner;

/// Why a job has failed whose deadline came.
pub(crate) fn too_late(job: &Job) -> JobFailure {
    let allowed = job
        .deadline
        .and_then(|deadline| deadline.duration_since(job.created_at).ok())
        .unwrap_or_default();
    JobFailure {
        kind: ErrorKind::DeadlineExceeded,
        message: format!(
            "the job had not ended {} s after it was accepted, which is as long as this server lets a job wait and \
             run; send the request again, or ask for less",
            allowed.as_secs()
        ),
    }
}

impl Inner {
    /// When a job that is stored now is given up; None is beyond all time.
    pub(crate) fn deadline_of_new(&self, job: &Job) -> Option<SystemTime> {
        job.created_at.checked_add(self.config.job_deadline)
    }

    /// Whether its deadline has come.
    pub(crate) fn is_late(&self, job: &Job) -> bool {
        job.deadline.is_some_and(|deadline| deadline <= self.aged_now())
    }

    /// Whether a late job waits for a store that does not say whether its pictures are there: for as long as finished pictures wait
    /// to be stored, since whoever waits for it is to have an answer.
    pub(crate) fn looks_again(&self, job: &Job) -> bool {
        let late_for = job
            .deadline
            .and_then(|deadline| self.aged_now().duration_since(deadline).ok());
        late_for.is_none_or(|late_for| late_for < self.config.save_patience)
    }

    /// The job's deadline on the clock that does not jump.
    pub(crate) fn deadline_of(&self, job: &Job) -> Option<Instant> {
        let left = job.deadline?.duration_since(self.aged_now()).unwrap_or_default();
        self.clock.now().checked_add(left)
    }

    /// Returns when the job's deadline has come.
    pub(crate) async fn deadline_comes(&self, job: &Job) {
        match self.deadline_of(job) {
            Some(deadline) => self.clock.sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}
