//! Jobs whose preparation has begun: each turn does a few slices of one of them.
//!
//! An ordinary job is prepared in one turn. A job with a very long prompt needs many, and lets the others go on between
//! them: turns go to half-prepared jobs and to new ones by turns.

use std::collections::VecDeque;

use pentimento_types::JobId;

use crate::BatchPolicy;

/// Half-prepared jobs at once, each of which holds memory and makes no image yet.
const MOST: usize = 4;

/// The half-prepared jobs.
#[derive(Debug, Default)]
pub(super) struct Preparing {
    /// The job whose turn it is, once a slice of it is reported that was not the last.
    current: Option<JobId>,
    /// Slices of this turn.
    slices: u32,
    /// Jobs whose turn has ended before they were ready, in the order of their next.
    others: VecDeque<JobId>,
    /// Whether the last turn went to a job that was, or is now, half-prepared, so that the next is for a new one.
    prefers_new: bool,
}

impl Preparing {
    /// The job whose turn goes on.
    pub(super) fn go_on(&mut self, policy: &BatchPolicy) -> Option<JobId> {
        let job = self.current.take()?;
        if self.slices >= policy.slices_per_turn.max(1) {
            self.others.push_back(job);
            self.prefers_new = true;
            return None;
        }
        self.slices += 1;
        Some(job)
    }

    /// The job of the next turn: one of ours, or a new one from `begin`.
    pub(super) fn start_turn(&mut self, begin: impl FnOnce() -> Option<JobId>) -> Option<JobId> {
        let may_begin = self.others.len() < MOST;
        let begin = || Some((if may_begin { begin() } else { None }?, false));
        let others = &mut self.others;
        let mut resume = || Some((others.pop_front()?, true));
        let (job, resumed) = if self.prefers_new {
            begin().or_else(resume)?
        } else {
            resume().or_else(begin)?
        };
        self.prefers_new = resumed;
        self.slices = 1;
        Some(job)
    }

    /// A slice is done, and more are to come.
    pub(super) fn goes_on(&mut self, job: JobId) {
        self.current = Some(job);
    }

    pub(super) fn remove(&mut self, job: JobId) {
        self.current.take_if(|current| *current == job);
        self.others.retain(|other| *other != job);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.others.is_empty()
    }
}
