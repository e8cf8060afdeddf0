//! The record of every job.

use std::time::SystemTime;

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Job, JobId, JobState};

use crate::{JobsError, Transition};

/// Jobs by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting for a worker, or for their input images.
    pub queued: usize,
    /// In a worker's hands.
    pub running: usize,
    /// How many of both together are accepted.
    pub limit: usize,
}

impl JobCounts {
    /// Whether one more job would be accepted.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.queued + self.running < self.limit
    }
}

/// Which jobs [`JobStore::list`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these states; empty means any.
    pub states: Vec<JobState>,
    /// Of this caller only.
    pub owner: Option<ApiKeyId>,
    /// Only jobs with a greater id, to read on after a page.
    pub after: Option<JobId>,
    /// At most so many; 0 means all.
    pub limit: usize,
}

/// Keeps job records. Every change is a compare-and-set through the state machine. How far a running job is, is not part
/// of its record: that would be a durable write for every evaluation.
#[async_trait]
pub trait JobStore: Send + Sync + std::fmt::Debug {
    /// Takes a new job. When this returns, the job survives what the implementation promises to survive.
    ///
    /// # Errors
    /// [`JobsError::Duplicate`], or [`JobsError::Full`] at once when too many jobs are unfinished.
    async fn insert(&self, job: Job) -> Result<(), JobsError>;

    /// The job as it is now, or None.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError>;

    /// Changes a job and returns it as it is then. One caller at a time wins; nothing changes on an error.
    ///
    /// # Errors
    /// [`JobsError::NotFound`], [`JobsError::Refused`].
    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError>;

    /// Returns the job as soon as it is in a final state. Is told of the change and never polls.
    ///
    /// # Errors
    /// [`JobsError::NotFound`].
    async fn wait_until_ended(&self, id: JobId) -> Result<Job, JobsError>;

    /// Jobs that fit the filter, by ascending id, which is the order of their making.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError>;

    /// How many jobs wait and run.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn counts(&self) -> Result<JobCounts, JobsError>;

    /// Forgets the jobs that ended before `finished_before`, and returns their ids.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_until_both_together_reach_the_limit() {
        let room = |queued, running| {
            JobCounts {
                queued,
                running,
                limit: 5,
            }
            .has_room()
        };
        assert!(room(0, 0) && room(2, 2) && room(4, 0));
        assert!(!room(3, 2) && !room(5, 0) && !room(2, 4));
    }
}
