//! What a job store or queue can answer instead of its result.

use std::error::Error;

use pentimento_types::{ErrorKind, HasKind, JobId, WebhookId};

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
    /// The dialect's number stands for another job already.
    #[error("the number of the job is taken")]
    NumberTaken,
    /// The owner has used the key of a request for another one.
    #[error("the idempotency key was used for another request, which made job {id}")]
    KeyReused {
        /// The job of the first request.
        id: JobId,
    },
    /// Another machine took a request with this key, and cannot be asked what became of it.
    #[error(
        "another machine took a request with this idempotency key a moment ago and cannot be heard; send this one again in a \
         minute"
    )]
    KeyInDoubt,
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
    /// The record of the job is larger than a store that several machines share takes.
    #[error(
        "the request takes {bytes} bytes beside its pictures, and a cluster shares at most {limit}; shorten its prompts"
    )]
    TooLarge {
        /// Of the record.
        bytes: usize,
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
    /// The records were written by a later version of this program, which keeps them in another way.
    #[error(
        "the jobs in this data folder were written by a newer version of pentimento (schema {found}; this version knows \
         {known}); start that version, or choose another folder with --data DIR"
    )]
    NewerSchema {
        /// Of the file.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// No such webhook.
    #[error("there is no webhook {id}")]
    WebhookNotFound {
        /// The id asked for.
        id: WebhookId,
    },
    /// The webhook was sent again since, or has been settled; what this sending found out does not count any more.
    #[error("the sending of webhook {id} is lost")]
    SendingLost {
        /// The webhook.
        id: WebhookId,
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
            Self::NotFound { .. } | Self::WebhookNotFound { .. } => ErrorKind::NotFound,
            Self::Full { .. } | Self::ShareFull { .. } => ErrorKind::Overloaded,
            Self::OwnerFull { .. } => ErrorKind::QuotaExceeded,
            Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::Duplicate { .. }
            | Self::NumberTaken
            | Self::KeyReused { .. }
            | Self::Refused(_)
            | Self::ClaimLost { .. }
            | Self::SendingLost { .. } => ErrorKind::Conflict,
            Self::KeyInDoubt | Self::NewerSchema { .. } | Self::Backend { .. } => ErrorKind::Unavailable,
        }
    }
}
