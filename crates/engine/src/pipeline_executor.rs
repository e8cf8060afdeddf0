//! The real device: [`pentimento_pipeline`]'s three acts behind the [`Executor`] seam.
//!
//! Preparations and states hold their model, so a model leaves memory only when none of its images is left.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pentimento_pipeline::{
    DenoiseState, Device, Finishing, PipelineError, Preparation, PrepareInput, StableDiffusion,
};
use pentimento_types::{
    ErrorKind, Findings, HasKind, MemoryBudget, MemoryLedger, MemoryUse, Reservation, RgbImage, SystemClock,
};

use crate::executor::PreparedImage;
use crate::metrics::LoaderMetrics;
use crate::{
    BatchKey, Executor, ExecutorError, FinishStep, FinishedImage, LatentSize, ModelKey, ModelLoader as _,
    PipelineLoader, PrepareStep, Prepared, ResolvedJob, ResolvedModels, SharedCause,
};

/// Weights that are kept in memory where nothing else is said, in bytes: about three checkpoints of half precision.
pub const DEFAULT_MODEL_MEMORY: u64 = 8 << 30;
/// Tokens of a prompt where nothing else is said: 32 chunks of what the text encoder takes at once.
pub const DEFAULT_PROMPT_TOKENS: usize = 75 * 32;

/// Runs Stable Diffusion.
pub struct PipelineExecutor {
    loader: PipelineLoader,
    memory: Arc<MemoryLedger>,
    max_prompt_tokens: usize,
}

impl fmt::Debug for PipelineExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineExecutor")
            .field("loader", &self.loader)
            .finish_non_exhaustive()
    }
}

/// A job whose prompt and image are being encoded, with the model that does it.
pub struct PipelinePreparation {
    input: ResolvedJob,
    preparation: Preparation,
    model: Arc<StableDiffusion>,
    /// What the prompts take, for all images together.
    memory: Arc<Reservation>,
    /// Whether it was begun anew for want of the device's memory, which is done once.
    began_again: bool,
}

impl fmt::Debug for PipelinePreparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelinePreparation")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

/// One image between two slices of its decoding, with the model it runs on.
pub struct PipelineFinishing {
    finishing: Finishing,
    /// As of a preparation.
    began_again: bool,
    model: Arc<StableDiffusion>,
    models: Arc<ResolvedModels>,
}

impl fmt::Debug for PipelineFinishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineFinishing")
            .field("model", &self.model.name())
            .finish_non_exhaustive()
    }
}

/// One image between two evaluations, with the model it runs on.
pub struct PipelineState {
    state: DenoiseState,
    model: Arc<StableDiffusion>,
    /// What the model was made of.
    models: Arc<ResolvedModels>,
    /// Given back with the last image of the job.
    _memory: Arc<Reservation>,
}

impl fmt::Debug for PipelineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineState")
            .field("model", &self.model.name())
            .finish_non_exhaustive()
    }
}

impl PipelineExecutor {
    /// Computes on the CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self::cpu_within(MemoryLedger::new(MemoryBudget {
            weights: DEFAULT_MODEL_MEMORY,
            ..MemoryBudget::UNBOUNDED
        }))
    }

    /// Computes on the CPU, within the budgets for weights and states. Weights that jobs use stay beyond it, and a model
    /// that is larger is loaded once no other is in use.
    #[must_use]
    pub fn cpu_within(memory: Arc<MemoryLedger>) -> Self {
        Self::on(Device::Cpu, memory, None)
    }

    /// Computes on `device`, within the budgets for weights and states. Models that nobody has used for as long as `keep_alive`
    /// leave memory when [`EngineHandle::evict_unused`](crate::EngineHandle::evict_unused) is called, unless their entry says
    /// otherwise; None keeps them until the room is needed.
    #[must_use]
    pub fn on(device: Device, memory: Arc<MemoryLedger>, keep_alive: Option<Duration>) -> Self {
        Self::counting(device, memory, (keep_alive, LoaderMetrics::default()))
    }

    /// As [`PipelineExecutor::on`], one for each of several devices with its own account of memory.
    pub fn on_each(
        devices: impl IntoIterator<Item = (Device, Arc<MemoryLedger>)>,
        keep_alive: Option<Duration>,
    ) -> Vec<Self> {
        let metrics = LoaderMetrics::default();
        let devices = devices.into_iter();
        devices
            .map(|(device, memory)| Self::counting(device, memory, (keep_alive, metrics.clone())))
            .collect()
    }

    fn counting(device: Device, memory: Arc<MemoryLedger>, life: (Option<Duration>, LoaderMetrics)) -> Self {
        Self {
            loader: PipelineLoader::new(device, Arc::clone(&memory), Arc::new(SystemClock), life),
            memory,
            max_prompt_tokens: DEFAULT_PROMPT_TOKENS,
        }
    }

    /// Refuses prompts of more tokens than this.
    #[must_use]
    pub const fn with_max_prompt_tokens(mut self, tokens: usize) -> Self {
        self.max_prompt_tokens = tokens;
        self
    }

    /// Whether that has failed for want of the device's memory, and there is more now.
    fn frees_memory<T, E: Borrow<PipelineError>>(&self, result: &Result<T, E>) -> bool {
        let is_full = |error: &E| error.borrow().kind() == ErrorKind::OutOfDeviceMemory;
        result.as_ref().is_err_and(is_full) && self.loader.evict_idle() > 0
    }

    /// Whether that has failed because the autoencoder left the range of 16 bits, and the next pass is in 32.
    fn widens_vae(
        &self,
        error: &PipelineError,
        (model, models): (&StableDiffusion, &ResolvedModels),
    ) -> bool {
        error.is_vae_overflow() && self.loader.widen_vae(model, models)
    }

    fn start(&self, model: &StableDiffusion, input: &ResolvedJob) -> Result<Preparation, ExecutorError> {
        let begun = model.begin(PrepareInput {
            recipe: Arc::clone(&input.recipe),
            images: input.images.clone(),
            embeddings: input.models.embeddings.clone(),
            max_prompt_tokens: self.max_prompt_tokens,
        });
        begun.map_err(|error| explain("prepare", error))
    }
}

impl Executor for PipelineExecutor {
    type Loader = PipelineLoader;
    type Preparation = PipelinePreparation;
    type State = PipelineState;
    type Finishing = PipelineFinishing;

    fn loader(&self) -> PipelineLoader {
        self.loader.clone()
    }

    fn begin(
        &mut self,
        input: &ResolvedJob,
        model: &Arc<StableDiffusion>,
    ) -> Result<PipelinePreparation, ExecutorError> {
        let preparation = self.start(model, input)?;
        let bytes = model.prompt_bytes(&preparation);
        let memory = self.memory.reserve(MemoryUse::States, bytes)?;
        Ok(PipelinePreparation {
            input: input.clone(),
            preparation,
            model: Arc::clone(model),
            memory: Arc::new(memory),
            began_again: false,
        })
    }

    fn advance(
        &mut self,
        preparation: &mut PipelinePreparation,
    ) -> Result<PrepareStep<PipelineState>, ExecutorError> {
        let model = Arc::clone(&preparation.model);
        let states = match model.advance(&mut preparation.preparation) {
            Ok(pentimento_pipeline::PrepareStep::Continue) => {
                let in_pass = preparation.preparation.is_encoding();
                return Ok(PrepareStep::Continue { in_pass });
            }
            Ok(pentimento_pipeline::PrepareStep::Done(states)) => states,
            // Models that nobody uses may be what fills the device.
            Err(error) if !preparation.began_again && self.frees_memory::<(), _>(&Err(&error)) => {
                preparation.began_again = true;
                preparation.preparation = self.start(&model, &preparation.input)?;
                return Ok(PrepareStep::Continue { in_pass: false });
            }
            Err(error) if self.widens_vae(&error, (&model, &preparation.input.models)) => {
                preparation.preparation = self.start(&model, &preparation.input)?;
                return Ok(PrepareStep::Continue { in_pass: false });
            }
            Err(error) => return Err(explain("prepare", error)),
        };
        let models = Arc::new(preparation.input.models.clone());
        let key = batch_key(&preparation.input, states.first());
        let images = states.into_iter().map(|state| PreparedImage {
            evaluations: state.evaluations_left(),
            rows: state.rows(),
            state: PipelineState {
                state,
                model: Arc::clone(&model),
                models: Arc::clone(&models),
                _memory: Arc::clone(&preparation.memory),
            },
        });
        let images = images.collect();
        Ok(PrepareStep::Done(Prepared { key, images }))
    }

    fn images_that_fit(&mut self, states: &[&PipelineState]) -> usize {
        let Some(first) = states.first() else { return 0 };
        let model = Arc::clone(&first.model);
        let states: Vec<&DenoiseState> = states.iter().map(|image| &image.state).collect();
        // What cannot be measured is run, and says itself what is wrong with it.
        let fits = |count: usize| match model.measure(&states[..count]) {
            Ok(Some(memory)) => memory.fits,
            Ok(None) | Err(_) => true,
        };
        if fits(states.len()) || (self.loader.evict_idle() > 0 && fits(states.len())) {
            return states.len();
        }
        // Of `fitting` it is known that they fit, or that there are no fewer.
        let (mut fitting, mut too_many) = (1, states.len());
        while too_many - fitting > 1 {
            let middle = usize::midpoint(fitting, too_many);
            if fits(middle) {
                fitting = middle;
            } else {
                too_many = middle;
            }
        }
        fitting
    }

    fn denoise(&mut self, states: &mut [&mut PipelineState]) -> Result<(), ExecutorError> {
        let Some(first) = states.first() else {
            return Ok(());
        };
        let model = Arc::clone(&first.model);
        let mut rows: Vec<&mut DenoiseState> = states.iter_mut().map(|image| &mut image.state).collect();
        let mut done = model.denoise(&mut rows);
        if self.frees_memory(&done) {
            // No state has moved.
            done = model.denoise(&mut rows);
        }
        done.map_err(|error| explain("denoise", error))
    }

    fn preview(&self, state: &PipelineState) -> Option<RgbImage> {
        state.model.preview(&state.state)
    }

    fn begin_finish(&mut self, state: PipelineState) -> Result<PipelineFinishing, ExecutorError> {
        let PipelineState {
            state,
            model,
            models,
            _memory,
        } = state;
        let begun = model.begin_finish(state);
        let finishing = begun.map_err(|error| explain("finish", error))?;
        Ok(PipelineFinishing {
            finishing,
            began_again: false,
            model,
            models,
        })
    }

    fn advance_finish(&mut self, finishing: &mut PipelineFinishing) -> Result<FinishStep, ExecutorError> {
        let PipelineFinishing {
            finishing,
            began_again,
            model,
            models,
        } = finishing;
        let mut step = model.advance_finish(finishing);
        let is_full = !*began_again && self.frees_memory(&step);
        *began_again |= is_full;
        let widens = |error: &PipelineError| self.widens_vae(error, (model, models));
        if is_full || step.as_ref().is_err_and(widens) {
            step = model
                .begin_finish_again(finishing)
                .map(|()| pentimento_pipeline::FinishStep::Continue);
        }
        Ok(match step.map_err(|error| explain("finish", error))? {
            pentimento_pipeline::FinishStep::Continue => FinishStep::Continue,
            pentimento_pipeline::FinishStep::Done(image) => FinishStep::Done(FinishedImage {
                image,
                findings: Findings::default(),
                precision: model.precision(),
            }),
        })
    }
}

/// All images of a job have one size, one model and one prompt. A job without images is refused by the engine.
fn batch_key(input: &ResolvedJob, state: Option<&DenoiseState>) -> BatchKey {
    let (height, width) = state.map_or((0, 0), DenoiseState::latent_size);
    let narrow = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    BatchKey {
        model: ModelKey::without_loras(&input.models),
        programs: state.map(DenoiseState::programs).unwrap_or_default(),
        latent: LatentSize {
            height: narrow(height),
            width: narrow(width),
        },
        conditioning: state.map(DenoiseState::conditioning_shape).unwrap_or_default(),
    }
}

fn explain(act: &'static str, error: PipelineError) -> ExecutorError {
    let (kind, is_device_lost) = (error.kind(), error.is_device_lost());
    let source: SharedCause = Arc::new(error);
    if is_device_lost {
        ExecutorError::DeviceLost { source }
    } else if kind == ErrorKind::OutOfDeviceMemory {
        ExecutorError::OutOfDeviceMemory { act, source }
    } else {
        ExecutorError::Failed { act, kind, source }
    }
}

#[cfg(test)]
mod tests;
