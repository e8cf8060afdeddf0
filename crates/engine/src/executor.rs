//! The seam between deciding and doing: what the device thread calls, and nothing else.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_types::{ErrorKind, GenerationRequest, HasKind, RgbPicture};

use crate::{BatchKey, LatentSize, ModelKey, ModelLoader, ModelSpec};

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
    /// What its model is put together from.
    #[must_use]
    pub fn model(&self) -> ModelSpec {
        ModelSpec {
            checkpoint: Arc::clone(&self.checkpoint),
        }
    }

    /// The weights this job runs on.
    #[must_use]
    pub fn model_key(&self) -> ModelKey {
        self.model().key()
    }

    /// What its decoded images take: those it brings, and those it will be given. In bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        let bytes = |image: &RgbPicture| image.pixels().len() as u64;
        let made = u64::from(self.request.image_count).saturating_mul(bytes(&self.init_image));
        bytes(&self.init_image) + self.mask.as_ref().map_or(0, bytes) + made
    }

    /// The latent size, known before the model is loaded.
    #[must_use]
    pub fn latent_size(&self) -> LatentSize {
        LatentSize::of_image(self.init_image.size())
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
    /// When the request does not suit the model.
    fn begin(
        &mut self,
        input: &GenerationInput,
        model: &ModelOf<Self>,
    ) -> Result<Self::Preparation, ExecutorError>;

    /// Does the next slice: a part of the prompt, the image, or the start of the schedule with its noise.
    ///
    /// # Errors
    /// When the request does not suit the model, or the device fails; the preparation is then of no use any more.
    fn advance(&mut self, preparation: &mut Self::Preparation)
    -> Result<PrepareStep<Self::State>, ExecutorError>;

    /// Runs exactly one evaluation of every state. There is at least one, and all have one [`BatchKey`].
    ///
    /// # Errors
    /// When the forward fails or a result is not finite; then no state has changed.
    fn denoise(&mut self, states: &mut [&mut Self::State]) -> Result<(), ExecutorError>;

    /// Decodes an image that has no evaluation left.
    ///
    /// # Errors
    /// When decoding fails or a result is not finite.
    fn finish(&mut self, state: Self::State) -> Result<RgbPicture, ExecutorError>;
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
            Self::DeviceLost { .. } => ErrorKind::Unavailable,
        }
    }
}
