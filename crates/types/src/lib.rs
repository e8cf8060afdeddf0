//! The words that all crates share: requests, jobs, identifiers, error kinds and the clock.
//!
//! Nothing here knows HTTP, tensors or any vendor's field names.
//! Serde derives exist for our own job store only; a wire body is always a separate struct.

mod clock;
mod error;
mod ids;
mod image;
mod job;
mod request;
mod scheduler;
mod token_merging;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{ErrorKind, HasKind, describe_chain};
pub use ids::{ApiKeyId, ImageKey, JobId, ModelId};
pub use image::{ImageFormat, ImageSource, RgbPicture, Size};
pub use job::{Job, JobFailure, JobOutcome, JobState, Progress, StoredImage};
pub use request::{EmbeddingRef, GenerationRequest, LoraRef, Task};
pub use scheduler::{AlgorithmType, NoiseSpacing, SchedulerChoice, SchedulerKind};
pub use token_merging::MERGED_FROM;
