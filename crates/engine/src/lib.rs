//! Admission, step-level batching and the one thread that owns the device.
//!
//! The unit of work is one UNet evaluation of one image.
//! [`Batcher`] decides what runs next and is a function of its inputs; [`Executor`] does it; [`EngineHandle`] is the
//! door for async code.
//! No tensor type appears in a public item of this crate.

mod admission;
mod batch_key;
mod batcher;
mod component_pool;
mod device_report;
mod device_thread;
mod engine_threads;
mod error;
mod event;
mod executor;
mod executor_error;
mod handle;
mod loader;
mod metrics;
mod model_memory;
mod pipeline_executor;
mod pipeline_loader;
mod placement;
mod policy;
mod preview_switch;
mod resolved_job;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use admission::Place;
pub use batch_key::{BatchKey, LatentSize, ModelKey};
pub use batcher::{AdmitError, Batcher, DenoiseFault, ImageId, ImageWork, JobSpec, Outcome, Plan, Verdict};
pub use device_report::{DeviceReport, GpuReport, precision_on};
pub use engine_threads::{Engine, EngineThread};
pub use error::EngineError;
pub use event::{JobEvent, JobEvents};
pub use executor::{Executor, FinishStep, FinishedImage, ModelOf, PrepareStep, Prepared, PreparedImage};
pub use executor_error::{ExecutorError, SharedCause};
pub use handle::{DeviceUse, EngineHandle, EngineStatus, JobTerms};
pub use loader::{LoadError, ModelLoader};
pub use pentimento_pipeline::{
    Beside, CheckpointFacts, ConditioningShape, Device, EmbeddingFiles, Filter, GpuDevice, IpAdapterEntries,
    LoraReport, Part, PipelineError, Precision, ProgramsId, PromptEmbedding, ReferenceSafetyChecker,
    ResolvedModels, RunPlan, SafetyChecker, SafetyScores, TokenCounter, UpscaleFactor, Upscaler, WordModel,
    keeps_everything, resampled, resampled_part, written_in,
};
pub use pipeline_executor::{
    DEFAULT_MODEL_MEMORY, DEFAULT_PROMPT_TOKENS, PipelineExecutor, PipelineFinishing, PipelinePreparation,
    PipelineState,
};
pub use pipeline_loader::PipelineLoader;
pub use placement::{Offer, Presence};
pub use policy::BatchPolicy;
pub use preview_switch::PreviewSwitch;
pub use resolved_job::ResolvedJob;
