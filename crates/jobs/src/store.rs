//! The record of every job.

use std::ops::Bound;
use std::time::SystemTime;

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Job, JobId, JobState};

use crate::{JobPlace, JobsError, Transition};

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLimits {
    /// Jobs that wait or run; one more is refused.
    pub unfinished: usize,
    /// Ended jobs that are remembered; the one that ended first is forgotten for another.
    pub finished: usize,
    /// The bytes of their records: a job with long prompts takes hundreds of times as many as one with short ones.
    pub finished_bytes: u64,
}

impl JobLimits {
    /// Bounds in number alone, for records that are all small.
    #[must_use]
    pub const fn in_number(unfinished: usize, finished: usize) -> Self {
        Self {
            unfinished,
            finished,
            finished_bytes: u64::MAX,
        }
    }
}

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

/// What has become of a job that was to be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is stored.
    New,
    /// Its owner has made the same request under the same key before: this is its job, and nothing was stored.
    Known(JobId),
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

impl JobFilter {
    /// The ids behind `after`.
    #[must_use]
    pub const fn range(&self) -> (Bound<JobId>, Bound<JobId>) {
        match (self.after, self.newest_first) {
            (None, _) => (Bound::Unbounded, Bound::Unbounded),
            (Some(after), false) => (Bound::Excluded(after), Bound::Unbounded),
            (Some(after), true) => (Bound::Unbounded, Bound::Excluded(after)),
        }
    }

    /// Those that it returns of the jobs in [`JobFilter::range`], by ascending id.
    #[must_use]
    pub fn choose<'a>(&self, mut jobs: impl DoubleEndedIterator<Item = &'a Job>) -> Vec<Job> {
        let in_order = std::iter::from_fn(|| {
            if self.newest_first {
                jobs.next_back()
            } else {
                jobs.next()
            }
        });
        let fits = in_order.filter(|job| {
            (self.states.is_empty() || self.states.contains(&job.state))
                && self.owner.as_ref().is_none_or(|owner| *owner == job.owner)
        });
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        fits.take(limit).cloned().collect()
    }
}

/// Keeps job records. Every change is a compare-and-set through the state machine. How far a running job is, is not part
/// of its record: that would be a durable write for every evaluation.
#[async_trait]
pub trait JobStore: Send + Sync + std::fmt::Debug {
    /// Whether what is stored outlives the process, so that a job which has not ended when the server stops goes on when it
    /// starts again.
    fn keeps_jobs(&self) -> bool {
        false
    }

    /// Whether this process has to see to a job: it took one that waits or has ended, or runs one that runs. Where several
    /// processes share the records, each mends and expires its own jobs only.
    fn is_ours(&self, _job: &Job) -> bool {
        true
    }

    /// Whether a job that is not found is none: a process that shares records with others may not have heard of all of them
    /// yet, and must not delete what belongs to them.
    fn sees_all(&self) -> bool {
        true
    }

    /// Whether other processes accept jobs of which this one may never hear: one that is cut off for a while works on, and
    /// what it needs for a job must not be deleted because nobody else knows the job.
    fn is_shared(&self) -> bool {
        false
    }

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
    /// Of several jobs of one owner with one key, however close together, one is stored; see [`crate::key_stands`].
    ///
    /// # Errors
    /// [`JobsError::Duplicate`], [`JobsError::NumberTaken`], [`JobsError::KeyReused`]; [`JobsError::Full`] where several
    /// processes share the records and one of them was faster.
    async fn insert(&self, job: Job, place: JobPlace) -> Result<Inserted, JobsError>;

    /// The job as it is now, or None.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError>;

    /// The job of a dialect that has this number, or None.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn find_by_number(&self, dialect: &str, number: u64) -> Result<Option<Job>, JobsError>;

    /// The job for which this key of its owner stands now, or None.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn find_by_key(&self, owner: &ApiKeyId, key: &str) -> Result<Option<Job>, JobsError>;

    /// Changes a job and returns it as it is then. One caller at a time wins; nothing changes on an error. An end that is to
    /// be told by webhook is in the [`crate::Outbox`] in the same step.
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

    /// Forgets a job that has ended, with its webhook. False when there is none of this id, or it has not ended; then nothing
    /// changes.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn remove(&self, id: JobId) -> Result<bool, JobsError>;

    /// Forgets the jobs that ended before `finished_before`, with their webhooks, and returns their ids. A job whose webhook
    /// is still to be sent is kept until that is delivered or given up.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError>;
}
