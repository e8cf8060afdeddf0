//! What a job store or queue can answer instead of its result.

use std::error::Error;

use pentimento_types::{ErrorKind, HasKind, JobId};

use crate::TransitionRefused;

/// An error of a store or a queue.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// No such job.
    #[error("there is no job {id}")]
    NotFound {
        /// The id asked for.
        id: JobId,
    },
    /// An id may be inserted once.
    #[error("job {id} is there already")]
    Duplicate {
        /// The id.
        id: JobId,
    },
    /// As many unfinished jobs as allowed.
    #[error("{limit} jobs are waiting or running already")]
    Full {
        /// The bound.
        limit: usize,
    },
    /// One caller has its share of the jobs that are allowed.
    #[error(
        "{held} jobs of this caller are waiting or running already, and the places that are left are for others"
    )]
    ShareFull {
        /// Unfinished jobs of the caller.
        held: usize,
    },
    /// One caller has as many unfinished jobs as its own bound allows.
    #[error("{limit} jobs of this caller are waiting or running already, which is its bound")]
    OwnerFull {
        /// The bound.
        limit: usize,
    },
    /// The job is not where the transition starts.
    #[error("the change of state was refused")]
    Refused(#[from] TransitionRefused),
    /// The lease has run out or another worker holds it; nothing that this claim did counts any more.
    #[error("the claim on job {id} is lost")]
    ClaimLost {
        /// The job.
        id: JobId,
    },
    /// The place where the records are kept failed.
    #[error("could not {what}")]
    Backend {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl HasKind for JobsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Full { .. } | Self::ShareFull { .. } => ErrorKind::Overloaded,
            Self::OwnerFull { .. } => ErrorKind::QuotaExceeded,
            Self::Duplicate { .. } | Self::Refused(_) | Self::ClaimLost { .. } => ErrorKind::Conflict,
            Self::Backend { .. } => ErrorKind::Unavailable,
        }
    }
}
