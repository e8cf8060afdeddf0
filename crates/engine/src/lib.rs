//! Admission, step-level batching and the one thread that owns the device.
//!
//! The unit of work is one UNet evaluation of one picture.
//! [`Batcher`] decides what runs next and is a function of its inputs; [`Executor`] does it; [`EngineHandle`] is the
//! door for async code.
//! No tensor type appears in a public item of this crate.

mod batch_key;
mod batcher;
mod device_thread;
mod error;
mod event;
mod executor;
mod handle;
mod model_pool;
mod pipeline_executor;
mod policy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use batch_key::{BatchKey, ExtraInputs, LatentSize, ModelKey};
pub use batcher::{
    AdmitError, Batcher, DenoiseFault, JobSpec, Outcome, PictureId, PictureWork, Plan, Verdict,
};
pub use error::EngineError;
pub use event::{JobEvent, JobEvents};
pub use executor::{
    Executor, ExecutorError, FinishedImage, Prepared, PreparedPicture, ResolvedJob, ResolvedModels,
    SharedSource,
};
pub use handle::{Engine, EngineHandle, EngineStatus, EngineThread};
pub use model_pool::{ModelPool, PoolError};
pub use pipeline_executor::{PipelineExecutor, PipelineState};
pub use policy::BatchPolicy;
