//! The real device: [`pentimento_pipeline`]'s three acts behind the [`Executor`] seam, with the models they run on.
//!
//! A state holds its model, so a model leaves memory only when none of its pictures is left.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use pentimento_pipeline::{DenoiseState, PipelineError, StableDiffusion};
use pentimento_types::{Clock, ErrorKind, Findings, HasKind, SystemClock};

use crate::executor::PreparedPicture;
use crate::{
    BatchKey, Executor, ExecutorError, ExtraInputs, FinishedImage, LatentSize, ModelKey, ModelPool,
    PoolError, Prepared, ResolvedJob, SharedSource,
};

/// How long the cause of a failed load is the answer, before the files are looked at again.
const FAILURE_LIFETIME: Duration = Duration::from_secs(10);

/// The error is boxed since it is large and rare.
type Pool = ModelPool<ModelKey, StableDiffusion, Box<PipelineError>>;

/// Runs Stable Diffusion.
pub struct PipelineExecutor {
    device: Device,
    pool: Pool,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for PipelineExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineExecutor")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// One picture between two evaluations, with the model it runs on.
pub struct PipelineState {
    state: DenoiseState,
    model: Arc<StableDiffusion>,
}

impl fmt::Debug for PipelineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineState")
            .field("model", &self.model.name())
            .finish_non_exhaustive()
    }
}

impl PipelineExecutor {
    /// Computes on the CPU, with one model in memory at a time.
    #[must_use]
    pub fn cpu() -> Self {
        Self {
            device: Device::Cpu,
            pool: Pool::new(1, FAILURE_LIFETIME),
            clock: Arc::new(SystemClock),
        }
    }

    /// Keeps up to this many models in memory; at least the policy's `max_models` are needed.
    #[must_use]
    pub fn with_resident_models(mut self, count: usize) -> Self {
        self.pool = Pool::new(count, FAILURE_LIFETIME);
        self
    }

    fn model(&mut self, input: &ResolvedJob) -> Result<Arc<StableDiffusion>, ExecutorError> {
        let (device, checkpoint) = (&self.device, &input.models.checkpoint);
        let load = || StableDiffusion::load(checkpoint, device).map_err(Box::new);
        self.pool
            .get(&input.model_key(), self.clock.now(), load)
            .map_err(|error| {
                let kind = match &error {
                    PoolError::Load(cause) => cause.kind(),
                    PoolError::Full(_) => ErrorKind::Overloaded,
                };
                let source: SharedSource = match error {
                    PoolError::Load(cause) => cause,
                    PoolError::Full(_) => Arc::new(error),
                };
                ExecutorError::ModelLoad {
                    model: checkpoint.name.clone(),
                    kind,
                    source,
                }
            })
    }
}

impl Executor for PipelineExecutor {
    type State = PipelineState;

    fn prepare(&mut self, input: &ResolvedJob) -> Result<Prepared<PipelineState>, ExecutorError> {
        let model = self.model(input)?;
        let mut states = start(&model, input);
        let full = states
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::OutOfDeviceMemory);
        // Models that nobody uses may be what fills the device.
        if full && self.pool.evict_idle() > 0 {
            states = start(&model, input);
        }
        let states = states.map_err(|error| explain("prepare", *error))?;
        let key = batch_key(input, states.first());
        let pictures = states.into_iter().map(|state| PreparedPicture {
            evaluations: state.evaluations_left(),
            rows: state.rows(),
            state: PipelineState {
                state,
                model: Arc::clone(&model),
            },
        });
        Ok(Prepared {
            pictures: pictures.collect(),
            key,
        })
    }

    fn denoise(&mut self, states: &mut [&mut PipelineState]) -> Result<(), ExecutorError> {
        let Some(first) = states.first() else {
            return Ok(());
        };
        let model = Arc::clone(&first.model);
        let mut rows: Vec<&mut DenoiseState> = states.iter_mut().map(|picture| &mut picture.state).collect();
        model
            .denoise(&mut rows)
            .map_err(|error| explain("denoise", error))
    }

    fn finish(&mut self, state: PipelineState) -> Result<FinishedImage, ExecutorError> {
        let PipelineState { state, model } = state;
        let image = model.finish(state).map_err(|error| explain("finish", error))?;
        Ok(FinishedImage {
            image,
            findings: Findings::default(),
        })
    }

    fn resident_models(&self) -> Vec<String> {
        self.pool
            .resident()
            .iter()
            .map(|key| key.as_str().to_owned())
            .collect()
    }
}

/// The whole picture or the part that a mask shows. The error is boxed since it is large and rare.
fn start(model: &StableDiffusion, input: &ResolvedJob) -> Result<Vec<DenoiseState>, Box<PipelineError>> {
    let (recipe, init) = (&input.recipe, input.images.init());
    let states = match input.images.mask() {
        None => model.prepare(recipe, init),
        Some(mask) => model.prepare_inpaint(recipe, init, mask),
    };
    states.map_err(Box::new)
}

/// All pictures of a job have one size, one model and one prompt. A job without pictures is refused by the engine.
fn batch_key(input: &ResolvedJob, state: Option<&DenoiseState>) -> BatchKey {
    let (height, width) = state.map_or((0, 0), DenoiseState::latent_size);
    let narrow = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    BatchKey {
        model: input.model_key(),
        latent: LatentSize {
            height: narrow(height),
            width: narrow(width),
        },
        context_tokens: narrow(state.map_or(0, DenoiseState::context_tokens)),
        extra_inputs: ExtraInputs::default(),
    }
}

fn explain(act: &'static str, error: PipelineError) -> ExecutorError {
    let kind = error.kind();
    let source: SharedSource = Arc::new(error);
    if kind == ErrorKind::OutOfDeviceMemory {
        ExecutorError::OutOfDeviceMemory { act, source }
    } else {
        ExecutorError::Failed { act, kind, source }
    }
}

#[cfg(test)]
mod tests;
