//! The seam between deciding and doing: what the device thread calls, and nothing else.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_types::{ErrorKind, GenerationRequest, HasKind, RgbPicture};

use crate::{BatchKey, LatentSize, ModelKey};

/// Everything that the pictures of a job are made from.
#[derive(Clone)]
pub struct GenerationInput {
    /// What is asked.
    pub request: Arc<GenerationRequest>,
    /// The checkpoint that the request names, already resolved.
    pub checkpoint: Arc<ModelEntry>,
    /// The decoded picture to start from.
    pub init_image: RgbPicture,
    /// What is repainted, where the task is inpainting: white is made anew, black is kept.
    pub mask: Option<RgbPicture>,
}

impl GenerationInput {
    /// The weights this job runs on.
    #[must_use]
    pub fn model_key(&self) -> ModelKey {
        ModelKey::checkpoint(&self.checkpoint.name)
    }

    /// The latent size, known before the model is loaded.
    #[must_use]
    pub fn latent_size(&self) -> LatentSize {
        LatentSize::of_picture(self.init_image.size())
    }
}

// By hand, because a request is long and a picture has no useful text.
impl fmt::Debug for GenerationInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationInput")
            .field("model", &self.model_key())
            .field("init_image", &self.init_image)
            .finish_non_exhaustive()
    }
}

/// What `prepare` gives back: one state per picture, in the order of their index.
#[derive(Clone, Debug)]
pub struct Prepared<S> {
    /// What all these pictures have in common with those they may run with.
    pub key: BatchKey,
    /// `image_count` pictures.
    pub pictures: Vec<PreparedPicture<S>>,
}

/// One picture, ready for its first evaluation.
#[derive(Clone, Debug)]
pub struct PreparedPicture<S> {
    /// The executor's own state.
    pub state: S,
    /// Evaluations until it is finished; 0 for strength 0.
    pub evaluations: u32,
    /// Rows it brings to a forward: 2 when guided, else 1.
    pub rows: u32,
}

/// Runs the three acts of a job on the device. Owned and called by one thread.
///
/// # Contract
/// * A picture depends on its input only, never on what shares its forwards.
/// * `denoise` is all or nothing: it runs exactly one evaluation of every state, or returns an error and leaves every
///   state as it was, so that the batcher may try again with fewer pictures.
/// * A panic may leave the states of that call torn; the engine throws them away and prepares their jobs anew. It must
///   not leave the executor itself torn.
/// * A result that is not finite is an error, never a picture.
/// * Dropping a state frees all that it holds.
pub trait Executor: Send + 'static {
    /// What one picture carries from evaluation to evaluation.
    type State: Send;

    /// Encodes prompt and picture, chooses the start of the schedule and draws the noise, for all pictures of a job.
    /// Loads the model when it is not resident.
    ///
    /// # Errors
    /// When the model cannot be loaded, the request does not suit it, or the device fails.
    fn prepare(&mut self, input: &GenerationInput) -> Result<Prepared<Self::State>, ExecutorError>;

    /// Runs exactly one evaluation of every state. There is at least one, and all have one [`BatchKey`].
    ///
    /// # Errors
    /// When the forward fails or a result is not finite; then no state has changed.
    fn denoise(&mut self, states: &mut [&mut Self::State]) -> Result<(), ExecutorError>;

    /// Decodes a picture that has no evaluation left.
    ///
    /// # Errors
    /// When decoding fails or a result is not finite.
    fn finish(&mut self, state: Self::State) -> Result<RgbPicture, ExecutorError>;

    /// Names of the models whose weights are in memory, for status pages.
    fn resident_models(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A cause that several jobs can share.
pub type SharedSource = Arc<dyn Error + Send + Sync>;

/// Why an executor could not do what it was told. Clones share their cause, since one fault can end many jobs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The weights could not be read.
    #[error("the model `{model}` could not be loaded")]
    ModelLoad {
        /// Name in the catalogue.
        model: String,
        /// What the cause says of itself.
        kind: ErrorKind,
        /// The cause.
        #[source]
        source: SharedSource,
    },
    /// The device has too little memory. The same states may fit when fewer run together.
    #[error("the device has too little memory to {act}")]
    OutOfDeviceMemory {
        /// What was tried: `prepare`, `denoise` or `finish`.
        act: &'static str,
        /// The cause.
        #[source]
        source: SharedSource,
    },
    /// Nothing will run on the device any more; the process must be started anew.
    #[error("the device is lost")]
    DeviceLost {
        /// The cause.
        #[source]
        source: SharedSource,
    },
    /// Everything else.
    #[error("could not {act} the picture")]
    Failed {
        /// What was tried: `prepare`, `denoise` or `finish`.
        act: &'static str,
        /// What the cause says of itself.
        kind: ErrorKind,
        /// The cause.
        #[source]
        source: SharedSource,
    },
}

impl HasKind for ExecutorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ModelLoad { kind, .. } | Self::Failed { kind, .. } => *kind,
            Self::OutOfDeviceMemory { .. } => ErrorKind::OutOfDeviceMemory,
            Self::DeviceLost { .. } => ErrorKind::Unavailable,
        }
    }
}
