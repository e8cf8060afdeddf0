//! What can go wrong between a request's scheduler choice and its last evaluation.

use pentimento_types::{ErrorKind, HasKind};

use crate::latents::Latents;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// `scheduler_config.json` is not the JSON object that diffusers writes.
    #[error("scheduler_config.json cannot be read")]
    Json(#[source] serde_json::Error),
    /// `scheduler_config.json`, or the request on top of it, asks for something that no run can do.
    #[error("scheduler setting {key}: {problem}")]
    Setting {
        /// The key as diffusers writes it.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// Steps or strength out of range for this scheduler.
    #[error("{name}: {problem}")]
    Run {
        /// `steps` or `strength`.
        name: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// `advance` was called although no evaluation is left.
    #[error("the run has no evaluation left")]
    Finished,
    /// An array has not the shape of the run's latents.
    #[error("{what} has shape {found:?}, the latents have {expected:?}")]
    Shape {
        /// Which array.
        what: &'static str,
        /// Channels, height and width of the latents.
        expected: [usize; 3],
        /// Channels, height and width of the array.
        found: [usize; 3],
    },
}

impl SchedulerError {
    pub(crate) fn check_shape(what: &'static str, expected: [usize; 3], array: &Latents) -> Result<(), Self> {
        let found = array.shape();
        if found == expected {
            return Ok(());
        }
        Err(Self::Shape {
            what,
            expected,
            found,
        })
    }
}

impl HasKind for SchedulerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Json(_) | Self::Setting { .. } | Self::Run { .. } => ErrorKind::InvalidInput,
            Self::Finished | Self::Shape { .. } => ErrorKind::Internal,
        }
    }
}
