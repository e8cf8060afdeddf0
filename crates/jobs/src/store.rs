//! The record of every job.

use std::time::SystemTime;

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Job, JobId, JobState};

use crate::{JobPlace, JobsError, Transition};

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

/// Which jobs [`JobStore::list`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these states; empty means any.
    pub states: Vec<JobState>,
    /// Of this caller only.
    pub owner: Option<ApiKeyId>,
    /// Only jobs behind this one in the order, to read on after a page.
    pub after: Option<JobId>,
    /// By descending id instead of ascending.
    pub newest_first: bool,
    /// At most so many; 0 means all.
    pub limit: usize,
}

/// Keeps job records. Every change is a compare-and-set through the state machine. How far a running job is, is not part
/// of its record: that would be a durable write for every evaluation.
#[async_trait]
pub trait JobStore: Send + Sync + std::fmt::Debug {
    /// A place for a job of `owner` that may be inserted later. Asked for before anything costly is done with a request, so
    /// it answers at once; how many jobs of one owner are let in is for [`crate::Places`] to say.
    ///
    /// # Errors
    /// [`JobsError::Full`], [`JobsError::ShareFull`].
    fn reserve(&self, owner: &ApiKeyId) -> Result<JobPlace, JobsError> {
        self.reserve_within(owner, usize::MAX)
    }

    /// The same for an owner that may have at most `most` unfinished jobs.
    ///
    /// # Errors
    /// [`JobsError::Full`], [`JobsError::OwnerFull`], [`JobsError::ShareFull`].
    fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError>;

    /// Takes a new job, in a place of this store that it holds until it has ended. When this returns, the job survives what
    /// the implementation promises to survive.
    ///
    /// # Errors
    /// [`JobsError::Duplicate`]; [`JobsError::Full`] where several processes share the records and one of them was faster.
    async fn insert(&self, job: Job, place: JobPlace) -> Result<(), JobsError>;

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

    /// Jobs that fit the filter by their ids, which is the order of their making, ascending unless the filter says otherwise.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError>;

    /// How many jobs wait and run.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn counts(&self) -> Result<JobCounts, JobsError>;

    /// Forgets a job that has ended. False when there is none of this id, or it has not ended; then nothing changes.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn remove(&self, id: JobId) -> Result<bool, JobsError>;

    /// Forgets the jobs that ended before `finished_before`, and returns their ids.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError>;
}
