//! The seam between deciding and doing: what the device thread calls, and nothing else.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_types::{ErrorKind, Findings, HasKind, Inputs, Recipe, RgbPicture};

use crate::{BatchKey, LatentSize, ModelKey};

/// Everything that the images of a job are made from, with every name resolved and every input decoded.
#[derive(Clone)]
pub struct ResolvedJob {
    /// What is asked.
    pub recipe: Arc<Recipe>,
    /// What the names in the recipe stand for.
    pub models: ResolvedModels,
    /// The decoded input images. A mask makes it an inpainting job.
    pub images: Inputs<RgbPicture>,
}

/// The catalogue entries of the models that a recipe names.
#[derive(Clone, Debug)]
pub struct ResolvedModels {
    /// The checkpoint.
    pub checkpoint: Arc<ModelEntry>,
    /// Another VAE than the checkpoint's own.
    pub vae: Option<Arc<ModelEntry>>,
    /// LoRAs with their strengths, in the recipe's order.
    pub loras: Vec<(Arc<ModelEntry>, f64)>,
    /// Textual inversions, in the recipe's order.
    pub embeddings: Vec<Arc<ModelEntry>>,
}

impl ResolvedModels {
    /// A checkpoint with nothing beside it.
    #[must_use]
    pub const fn checkpoint(checkpoint: Arc<ModelEntry>) -> Self {
        Self {
            checkpoint,
            vae: None,
            loras: Vec::new(),
            embeddings: Vec::new(),
        }
    }
}

impl ResolvedJob {
    /// The weights this job runs on.
    #[must_use]
    pub fn model_key(&self) -> ModelKey {
        ModelKey::checkpoint(&self.models.checkpoint.name)
    }

    /// The latent size, known before the model is loaded.
    #[must_use]
    pub fn latent_size(&self) -> LatentSize {
        LatentSize::of_picture(self.images.init().size())
    }
}

// By hand, because a recipe is long and pixels have no useful text.
impl fmt::Debug for ResolvedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolvedJob")
            .field("model", &self.model_key())
            .field("images", &self.images)
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

/// What `finish` gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedImage {
    /// The pixels, of the size of the image to start from.
    pub image: RgbPicture,
    /// What was found in them.
    pub findings: Findings,
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
    fn prepare(&mut self, input: &ResolvedJob) -> Result<Prepared<Self::State>, ExecutorError>;

    /// Runs exactly one evaluation of every state. There is at least one, and all have one [`BatchKey`].
    ///
    /// # Errors
    /// When the forward fails or a result is not finite; then no state has changed.
    fn denoise(&mut self, states: &mut [&mut Self::State]) -> Result<(), ExecutorError>;

    /// Decodes an image that has no evaluation left, and says what was found in it.
    ///
    /// # Errors
    /// When decoding fails or a result is not finite.
    fn finish(&mut self, state: Self::State) -> Result<FinishedImage, ExecutorError>;

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
