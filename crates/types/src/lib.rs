//! The words that all crates share: recipes, jobs, identifiers, error kinds and the clock.
//!
//! Nothing here knows HTTP, tensors or any vendor's field names.
//! Serde derives exist for our own job store only; a wire body is always a separate struct.

mod clock;
mod delivery;
mod error;
mod framing;
mod ids;
mod image;
mod inputs;
mod job;
mod keyed_semaphores;
mod memory;
mod recipe;
mod regular_file;
mod safety;
mod scheduler;
mod token_merging;
mod weights_names;

pub use clock::{Clock, ManualClock, SystemClock};
pub use delivery::Delivery;
pub use error::{ErrorKind, HasKind, describe_chain};
pub use framing::{Framing, MaskedContent, ResizeMode};
pub use ids::{ApiKeyId, ImageKey, JobId, ModelId, WebhookId};
pub use image::{ImageFormat, ImageSource, RgbImage, Size};
pub use inputs::{InputRole, Inputs, Start, Task};
pub use job::{
    DialectTag, Findings, Idempotency, JOB_SCHEMA_VERSION, Job, JobFailure, JobNote, JobOrigin, JobOutcome,
    JobState, Priority, Progress, StoredImage,
};
pub use keyed_semaphores::KeyedSemaphores;
pub use memory::{MemoryBudget, MemoryFull, MemoryLedger, MemoryUse, Reservation};
pub use recipe::{EmbeddingRef, IpAdapterRef, LoraRef, Recipe};
pub use regular_file::{FileFault, open_regular, read_regular};
pub use safety::{SafetyAction, SafetyLevel, SafetyPolicy};
pub use scheduler::{AlgorithmType, NoiseSpacing, SchedulerChoice, SchedulerKind, StrengthRule};
pub use token_merging::MERGED_FROM;
pub use weights_names::{WeightsCopy, weights_copies};
