//! The seam between deciding and doing: what the device thread calls, and nothing else.

use pentimento_pipeline::Precision;
use pentimento_types::{Findings, RgbImage};

use crate::{BatchKey, ExecutorError, ModelLoader, ResolvedJob};

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
    Continue {
        /// Whether the next one belongs to a pass of the VAE, which holds a large tensor from slice to slice.
        in_pass: bool,
    },
    /// That was the last one.
    Done(Prepared<S>),
}

/// How far a finish is after a slice.
#[derive(Clone, Debug)]
pub enum FinishStep {
    /// There are more slices.
    Continue,
    /// That was the last one.
    Done(FinishedImage),
}

/// A finished image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedImage {
    /// The pixels, of the size of the image to start from.
    pub image: RgbImage,
    /// What was found in them.
    pub findings: Findings,
    /// The numbers in which they were computed; f32 where nothing was.
    pub precision: Precision,
}

/// What an executor's loader loads.
pub type ModelOf<E> = <<E as Executor>::Loader as ModelLoader>::Model;

/// Runs the three acts of a job on the device. Owned and called by one thread; only its loader works beside it.
///
/// # Contract
/// * An image depends on its input only, never on what shares its forwards.
/// * A slice of a preparation or a finish takes no longer than an evaluation of the same size, whatever the prompt is.
/// * `denoise` is all or nothing: it runs exactly one evaluation of every state, or returns an error and leaves every
///   state as it was, so that the batcher may try again with fewer images.
/// * A panic may leave the preparation or the states of that call torn; the engine throws them away and prepares their
///   jobs anew. It must not leave the executor itself torn.
/// * A result that is not finite is an error, never an image.
/// * Preparations, states and finishes hold their model; dropping them frees all that they hold.
pub trait Executor: Send + 'static {
    /// Brings models into memory beside the acts.
    type Loader: ModelLoader;
    /// A job whose preparation is under way.
    type Preparation: Send;
    /// What one image carries from evaluation to evaluation.
    type State: Send;
    /// An image whose decoding is under way.
    type Finishing: Send;

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

    /// How many of these images, from the first on, have room in the device's memory for an evaluation together; at least one, which
    /// runs whatever is known. All have one [`BatchKey`]. Asked before a forward is planned, so it computes nothing.
    fn images_that_fit(&mut self, states: &[&Self::State]) -> usize {
        states.len()
    }

    /// Runs exactly one evaluation of every state. There is at least one, and all have one [`BatchKey`].
    ///
    /// # Errors
    /// When the forward fails or a result is not finite; then no state has changed.
    fn denoise(&mut self, states: &mut [&mut Self::State]) -> Result<(), ExecutorError>;

    /// About what an image looks like between two evaluations, in no more than about 128x128 pixels, without a network's help.
    /// None where it cannot be told. The state stays as it is.
    fn preview(&self, state: &Self::State) -> Option<RgbImage>;

    /// Begins to decode an image that has no evaluation left.
    ///
    /// # Errors
    /// When its latents are not finite.
    fn begin_finish(&mut self, state: Self::State) -> Result<Self::Finishing, ExecutorError>;

    /// Does the next slice; after the last one it says what was found in the image.
    ///
    /// # Errors
    /// When decoding fails or a result is not finite; the finish is then of no use any more.
    fn advance_finish(&mut self, finishing: &mut Self::Finishing) -> Result<FinishStep, ExecutorError>;
}
