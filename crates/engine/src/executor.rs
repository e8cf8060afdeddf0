//! The seam between deciding and doing: what the device thread calls, and nothing else.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_types::{ErrorKind, Findings, HasKind, Inputs, MemoryFull, Recipe, RgbPicture};

use crate::{BatchKey, LatentSize, ModelKey, ModelLoader};

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

    /// Equal keys stand for equal models.
    #[must_use]
    pub fn key(&self) -> ModelKey {
        ModelKey::checkpoint(&self.checkpoint.name)
    }
}

impl ResolvedJob {
    /// The weights this job runs on.
    #[must_use]
    pub fn model_key(&self) -> ModelKey {
        self.models.key()
    }

    /// What its decoded images take: those it brings, and those it will be given. In bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        let brought: u64 = self.images.iter().map(|(_, image)| image.size_bytes()).sum();
        let made = u64::from(self.recipe.image_count).saturating_mul(self.images.init().size_bytes());
        brought.saturating_add(made)
    }

    /// The latent size, known before the model is loaded.
    #[must_use]
    pub fn latent_size(&self) -> LatentSize {
        LatentSize::of_image(self.images.init().size())
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

/// What a preparation gives: one state per image, in the order of their index.
#[derive(Clone, Debug)]
pub struct Prepared<S> {
    /// What all these images have in common with those they may run with.
    pub key: BatchKey,
    /// `image_count` images.
    pub images: Vec<PreparedImage<S>>,
}

/// One image, ready for its first evaluation.
#[derive(Clone, Debug)]
pub struct PreparedImage<S> {
    /// The executor's own state.
    pub state: S,
    /// Evaluations until it is finished; 0 for strength 0.
    pub evaluations: u32,
    /// Rows it brings to a forward: 2 when guided, else 1.
    pub rows: u32,
}

/// How far a preparation is after a slice.
#[derive(Clone, Debug)]
pub enum PrepareStep<S> {
    /// There are more slices.
    Continue,
    /// That was the last one.
    Done(Prepared<S>),
}

/// What `finish` gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedImage {
    /// The pixels, of the size of the image to start from.
    pub image: RgbPicture,
    /// What was found in them.
    pub findings: Findings,
}

/// What an executor's loader loads.
pub type ModelOf<E> = <<E as Executor>::Loader as ModelLoader>::Model;

/// Runs the three acts of a job on the device. Owned and called by one thread; only its loader works beside it.
///
/// # Contract
/// * An image depends on its input only, never on what shares its forwards.
/// * A slice of a preparation takes no longer than an evaluation of the same size, whatever the prompt is.
/// * `denoise` is all or nothing: it runs exactly one evaluation of every state, or returns an error and leaves every
///   state as it was, so that the batcher may try again with fewer images.
/// * A panic may leave the preparation or the states of that call torn; the engine throws them away and prepares their
///   jobs anew. It must not leave the executor itself torn.
/// * A result that is not finite is an error, never an image.
/// * Preparations and states hold their model; dropping them frees all that they hold.
pub trait Executor: Send + 'static {
    /// Brings models into memory beside the acts.
    type Loader: ModelLoader;
    /// A job whose preparation is under way.
    type Preparation: Send;
    /// What one image carries from evaluation to evaluation.
    type State: Send;

    /// The loader. Asked for once.
    fn loader(&self) -> Self::Loader;

    /// Begins to prepare all images of a job on its model, which is quick: prompt and image are encoded in the slices.
    ///
    /// # Errors
    /// When the request does not suit the model; [`ExecutorError::MemoryFull`] when it has to wait for others to end.
    fn begin(
        &mut self,
        input: &ResolvedJob,
        model: &ModelOf<Self>,
    ) -> Result<Self::Preparation, ExecutorError>;

    /// Does the next slice: a part of the prompt, the image, or the start of the schedule with its noise.
    ///
    /// # Errors
    /// When the request does not suit the model, or the device fails; the preparation is then of no use any more.
    fn advance(
        &mut self,
        preparation: &mut Self::Preparation,
    ) -> Result<PrepareStep<Self::State>, ExecutorError>;

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
}

/// A cause that several jobs can share.
pub type SharedCause = Arc<dyn Error + Send + Sync>;

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
        /// Whether it can never be loaded until somebody changes its files, so that trying again is of no use.
        permanent: bool,
        /// The cause.
        #[source]
        source: SharedCause,
    },
    /// The device has too little memory. The same states may fit when fewer run together.
    #[error("the device has too little memory to {act}")]
    OutOfDeviceMemory {
        /// What was tried: `prepare`, `denoise` or `finish`.
        act: &'static str,
        /// The cause.
        #[source]
        source: SharedCause,
    },
    /// The memory set aside for a use is taken by other jobs. The job may be prepared when one of them has ended.
    #[error("there is no memory for the job")]
    MemoryFull(#[from] MemoryFull),
    /// Nothing will run on the device any more; the process must be started anew.
    #[error("the device is lost")]
    DeviceLost {
        /// The cause.
        #[source]
        source: SharedCause,
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
        source: SharedCause,
    },
}

impl ExecutorError {
    /// Whether the same job fails in the same way however often it is tried, whatever the kind says.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::ModelLoad { permanent: true, .. })
    }
}

impl HasKind for ExecutorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ModelLoad { kind, .. } | Self::Failed { kind, .. } => *kind,
            Self::OutOfDeviceMemory { .. } => ErrorKind::OutOfDeviceMemory,
            Self::MemoryFull(full) if full.is_hopeless() => ErrorKind::TooLarge,
            Self::MemoryFull(_) => ErrorKind::Overloaded,
            Self::DeviceLost { .. } => ErrorKind::Unavailable,
        }
    }
}
