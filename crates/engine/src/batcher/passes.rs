//! Passes of the VAE that are under way, each of which holds a large tensor between its slices.
//!
//! Invariant: each is at most half as large as the one before, so that all together hold less than twice what the largest
//! holds, and a small picture still gets through beside a large one.

use pentimento_types::JobId;

#[derive(Clone, Copy, Debug)]
struct Pass {
    job: JobId,
    pixels: u64,
}

/// The passes, the largest first.
#[derive(Debug, Default)]
pub(super) struct Passes(Vec<Pass>);

impl Passes {
    /// Whether the job's pass goes on, or may begin.
    pub(super) fn admit(&self, job: JobId, pixels: u64) -> bool {
        let fits = |last: &Pass| pixels.saturating_mul(2) <= last.pixels;
        self.0.iter().any(|pass| pass.job == job) || self.0.last().is_none_or(fits)
    }

    /// The job with the smallest pass, which is over before another of that size may begin.
    pub(super) fn last(&self) -> Option<JobId> {
        self.0.last().map(|pass| pass.job)
    }

    /// Begins the job's pass unless it is under way.
    pub(super) fn hold(&mut self, job: JobId, pixels: u64) {
        if self.0.iter().all(|pass| pass.job != job) {
            self.0.push(Pass { job, pixels });
        }
    }

    pub(super) fn end(&mut self, job: JobId) {
        self.0.retain(|pass| pass.job != job);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
