//! What can go wrong between a request's scheduler choice and its last evaluation.

use pentimento_types::{ErrorKind, HasKind};

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
    /// The prediction's shape is not the latents' shape.
    #[error("the prediction has shape {found:?}, the latents have {expected:?}")]
    PredictionShape {
        /// The latents' shape.
        expected: Vec<usize>,
        /// The prediction's shape.
        found: Vec<usize>,
    },
    /// Latents of another shape were to take the place of those that stand.
    #[error("the new latents have shape {found:?}, those that stand have {expected:?}")]
    LatentsShape {
        /// The shape of the latents that stand.
        expected: Vec<usize>,
        /// The shape of the new ones.
        found: Vec<usize>,
    },
    /// A tensor operation failed.
    #[error("tensor arithmetic failed")]
    Tensor(#[from] candle_core::Error),
}

impl HasKind for SchedulerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Json(_) | Self::Setting { .. } | Self::Run { .. } => ErrorKind::InvalidInput,
            Self::Finished | Self::PredictionShape { .. } | Self::LatentsShape { .. } | Self::Tensor(_) => {
                ErrorKind::Internal
            }
        }
    }
}
