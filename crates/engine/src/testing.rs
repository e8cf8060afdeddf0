//! A device without networks, for tests of everything above the executor.
//!
//! An image is made from its request alone (the input, tinted by seed and prompt), evaluations follow steps and
//! strength as in the real pipeline, and acts and loads can be told to fail. Nothing here waits by itself.

mod loader;

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_pipeline::Precision;
use pentimento_types::{ErrorKind, Findings, RgbImage, Size};

pub use self::loader::{FakeLoader, FakeModel};
use crate::executor::PreparedImage;
use crate::{
    BatchKey, ConditioningShape, Executor, ExecutorError, FinishStep, FinishedImage, PrepareStep, Prepared,
    ProgramsId, ResolvedJob,
};

/// How an act goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An error of this kind.
    Error(ErrorKind),
    /// Too little device memory.
    OutOfMemory,
    /// A panic, after some states have been torn.
    Panic,
    /// The device is gone.
    DeviceLost,
}

/// In which act a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAt {
    /// In loading the model whose name has the fault's word in it.
    Load,
    /// In the first slice of the preparation.
    Prepare,
    /// In the evaluation with this number, from 0, of any of the job's images.
    Evaluation(u32),
    /// In a slice of the decoding.
    Finish,
}

/// A fault of every job whose prompt contains a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The word.
    pub prompt: String,
    /// When it strikes.
    pub at: FaultAt,
    /// What happens.
    pub kind: FaultKind,
    /// How many times it strikes before it is gone.
    pub times: u32,
}

impl Fault {
    /// A fault that strikes every time.
    #[must_use]
    pub fn always(prompt: &str, at: FaultAt, kind: FaultKind) -> Self {
        Self {
            prompt: prompt.to_owned(),
            at,
            kind,
            times: u32::MAX,
        }
    }

    /// A fault that strikes once.
    #[must_use]
    pub fn once(prompt: &str, at: FaultAt, kind: FaultKind) -> Self {
        Self {
            times: 1,
            ..Self::always(prompt, at, kind)
        }
    }
}

/// One image in one act, as the fake saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenImage {
    /// The request's prompt.
    pub prompt: String,
    /// The image's own seed.
    pub seed: u64,
    /// Evaluations it had behind it.
    pub evaluation: u32,
    /// Rows it brought.
    pub rows: u32,
}

/// One call of the executor, recorded before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenAct {
    /// A slice of the preparation of the job with this prompt.
    Prepare {
        /// The request's prompt.
        prompt: String,
    },
    /// `denoise`.
    Denoise {
        /// The key of all images.
        key: BatchKey,
        /// The images.
        images: Vec<SeenImage>,
    },
    /// A slice of the decoding of an image.
    Finish(SeenImage),
}

type Hook = Box<dyn FnMut(&SeenAct) + Send>;

/// The fake device.
#[derive(Default)]
pub struct FakeExecutor {
    faults: Faults,
    memory_rows: Option<u32>,
    slices: Option<NonZeroU32>,
    finish_slices: Option<NonZeroU32>,
    acts: Arc<Mutex<Vec<SeenAct>>>,
    hook: Option<Hook>,
    loader: FakeLoader,
}

/// The faults that are left, which the device and the loader share.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// The fault that strikes now, if any.
    fn strike(&self, word: &str, at: FaultAt) -> Option<FaultKind> {
        let strikes = |fault: &&mut Fault| fault.at == at && fault.times > 0 && word.contains(&fault.prompt);
        let mut faults = lock(&self.0);
        let fault = faults.iter_mut().find(strikes)?;
        fault.times = fault.times.saturating_sub(1);
        Some(fault.kind)
    }
}

impl fmt::Debug for FakeExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeExecutor")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// A job between two slices in the fake.
#[derive(Debug)]
pub struct FakePreparation {
    input: ResolvedJob,
    model: FakeModel,
    slices_left: u32,
}

/// What an image carries in the fake.
#[derive(Debug)]
pub struct FakeState {
    /// Held as a real state holds its model.
    _model: FakeModel,
    input: ResolvedJob,
    key: BatchKey,
    seen: SeenImage,
    torn: bool,
}

/// An image between two slices of its decoding in the fake.
#[derive(Debug)]
pub struct FakeFinishing {
    state: FakeState,
    slices_left: u32,
}

/// Reads what a [`FakeExecutor`] was told, while it runs on its own thread.
#[derive(Clone, Debug)]
pub struct Recording {
    acts: Arc<Mutex<Vec<SeenAct>>>,
    loader: FakeLoader,
}

impl Recording {
    /// All acts so far, in order.
    #[must_use]
    pub fn acts(&self) -> Vec<SeenAct> {
        lock(&self.acts).clone()
    }

    /// The names of the models that were loaded so far, in order; failed loads count, too.
    #[must_use]
    pub fn loads(&self) -> Vec<String> {
        lock(&self.loader.loads).clone()
    }

    /// The images of each forward so far.
    #[must_use]
    pub fn forwards(&self) -> Vec<Vec<SeenImage>> {
        let acts = self.acts().into_iter();
        acts.filter_map(|act| match act {
            SeenAct::Denoise { key: _, images } => Some(images),
            SeenAct::Prepare { .. } | SeenAct::Finish(_) => None,
        })
        .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeExecutor {
    /// A device that does everything right.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    #[must_use]
    pub fn with_fault(self, fault: Fault) -> Self {
        lock(&self.faults.0).push(fault);
        self
    }

    /// A device that runs out of memory when a forward has more rows than this.
    #[must_use]
    pub fn with_memory_for(mut self, rows: u32) -> Self {
        self.memory_rows = Some(rows);
        self
    }

    /// A device on which every preparation has this many slices; one where nothing is said.
    #[must_use]
    pub fn with_slices(mut self, slices: u32) -> Self {
        self.slices = NonZeroU32::new(slices);
        self
    }

    /// A device on which every decoding has this many slices; one where nothing is said.
    #[must_use]
    pub fn with_finish_slices(mut self, slices: u32) -> Self {
        self.finish_slices = NonZeroU32::new(slices);
        self
    }

    /// A machine with memory for this many models, that are in use or not.
    #[must_use]
    pub fn with_room_for_models(mut self, models: usize) -> Self {
        self.loader.room = Some(models.max(1));
        self
    }

    /// Calls this with the model's name before each load, on the loader's thread: to hold the load.
    #[must_use]
    pub fn with_load_hook(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.loader.hook = Some(Arc::new(hook));
        self
    }

    /// Calls this before each act, on the device thread: to move a clock, or to hold the device.
    #[must_use]
    pub fn with_hook(mut self, hook: impl FnMut(&SeenAct) + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// What the device has been told, readable from other threads.
    #[must_use]
    pub fn recording(&self) -> Recording {
        Recording {
            acts: Arc::clone(&self.acts),
            loader: self.loader.clone(),
        }
    }

    fn note(&mut self, act: SeenAct) {
        lock(&self.acts).push(act.clone());
        if let Some(hook) = &mut self.hook {
            hook(&act);
        }
    }

    /// The image that a request gets from any fake device, alone or in company.
    ///
    /// # Panics
    /// Never: the image has the size of the input, or the one asked for.
    #[must_use]
    pub fn image_of(input: &ResolvedJob, index: u32) -> RgbImage {
        let request = &input.recipe;
        let mut hasher = DefaultHasher::new();
        (request.seed.wrapping_add(u64::from(index)), &request.prompt).hash(&mut hasher);
        let tint = if evaluations(input) == 0 {
            [0; 8]
        } else {
            hasher.finish().to_le_bytes()
        };
        let size = input.images.size();
        let mut pixels = match input.images.init() {
            Some(init) => init.clone().into_pixels(),
            None => (0..size.rgb_bytes()).map(|_| 0).collect(),
        };
        for (at, value) in pixels.iter_mut().enumerate() {
            *value ^= tint[at % 3];
        }
        RgbImage::new(size, pixels).expect("as many bytes as the size says")
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "steps times strength fits u32"
)]
fn evaluations(input: &ResolvedJob) -> u32 {
    let request = &input.recipe;
    let strength = request.strength_for(input.images.task());
    let run = (f64::from(request.steps) * strength) as u32;
    if strength > 0.0 {
        run.clamp(1, request.steps)
    } else {
        0
    }
}

fn fail(kind: FaultKind, act: &'static str) -> ExecutorError {
    let source: crate::SharedCause = Arc::new(std::io::Error::other("a fault that a test asked for"));
    match kind {
        FaultKind::Error(kind) => ExecutorError::Failed { act, kind, source },
        FaultKind::OutOfMemory => ExecutorError::OutOfDeviceMemory { act, source },
        FaultKind::DeviceLost => ExecutorError::DeviceLost { source },
        #[expect(clippy::panic, reason = "a test asked for it")]
        FaultKind::Panic => panic!("a panic that a test asked for"),
    }
}

impl Executor for FakeExecutor {
    type Loader = FakeLoader;
    type Preparation = FakePreparation;
    type State = FakeState;
    type Finishing = FakeFinishing;

    fn loader(&self) -> FakeLoader {
        FakeLoader {
            faults: self.faults.clone(),
            ..self.loader.clone()
        }
    }

    fn begin(&mut self, input: &ResolvedJob, model: &FakeModel) -> Result<FakePreparation, ExecutorError> {
        assert_eq!(*model.0, input.models.checkpoint.name, "the job's own model");
        Ok(FakePreparation {
            input: input.clone(),
            model: model.clone(),
            slices_left: self.slices.map_or(1, NonZeroU32::get),
        })
    }

    fn advance(
        &mut self,
        preparation: &mut FakePreparation,
    ) -> Result<PrepareStep<FakeState>, ExecutorError> {
        let FakePreparation {
            input,
            model,
            slices_left,
        } = preparation;
        let request = &input.recipe;
        self.note(SeenAct::Prepare {
            prompt: request.prompt.clone(),
        });
        if let Some(kind) = self.faults.strike(&request.prompt, FaultAt::Prepare) {
            return Err(fail(kind, "prepare"));
        }
        *slices_left = slices_left.checked_sub(1).expect("a slice too many");
        if *slices_left > 0 {
            return Ok(PrepareStep::Continue { in_pass: false });
        }
        let key = BatchKey {
            model: input.model_key(),
            programs: ProgramsId::default(),
            latent: input.latent_size(),
            conditioning: ConditioningShape::of_text(77),
        };
        let rows = if request.is_guided() { 2 } else { 1 };
        let images = (0..request.image_count).map(|index| {
            let seen = SeenImage {
                prompt: request.prompt.clone(),
                seed: request.seed.wrapping_add(u64::from(index)),
                evaluation: 0,
                rows,
            };
            let state = FakeState {
                _model: model.clone(),
                input: input.clone(),
                key: key.clone(),
                seen,
                torn: false,
            };
            PreparedImage {
                state,
                evaluations: evaluations(input),
                rows,
            }
        });
        Ok(PrepareStep::Done(Prepared {
            images: images.collect(),
            key: key.clone(),
        }))
    }

    fn denoise(&mut self, states: &mut [&mut FakeState]) -> Result<(), ExecutorError> {
        let key = states
            .first()
            .expect("the engine gives at least one state")
            .key
            .clone();
        for state in states.iter() {
            assert_eq!(state.key, key, "images of two batch keys in one forward");
            assert!(!state.torn, "a torn state came back");
            assert!(
                state.seen.evaluation < evaluations(&state.input),
                "an evaluation too many"
            );
        }
        let images: Vec<SeenImage> = states.iter().map(|state| state.seen.clone()).collect();
        let rows: u32 = images.iter().map(|image| image.rows).sum();
        self.note(SeenAct::Denoise {
            key,
            images: images.clone(),
        });
        if self.memory_rows.is_some_and(|room| rows > room) {
            return Err(fail(FaultKind::OutOfMemory, "denoise"));
        }
        for image in &images {
            if let Some(kind) = self
                .faults
                .strike(&image.prompt, FaultAt::Evaluation(image.evaluation))
            {
                if kind == FaultKind::Panic {
                    states.iter_mut().for_each(|state| state.torn = true);
                }
                return Err(fail(kind, "denoise"));
            }
        }
        for state in states {
            state.seen.evaluation += 1;
        }
        Ok(())
    }

    fn preview(&self, state: &FakeState) -> Option<RgbImage> {
        assert!(!state.torn, "a torn state is looked at");
        // As many pixels as evaluations have run, so that a test can tell the previews from each other.
        let size = Size {
            width: state.seen.evaluation,
            height: 1,
        };
        RgbImage::new(size, vec![0; 3 * state.seen.evaluation as usize])
    }

    fn begin_finish(&mut self, state: FakeState) -> Result<FakeFinishing, ExecutorError> {
        assert!(!state.torn, "a torn state came back");
        assert_eq!(
            state.seen.evaluation,
            evaluations(&state.input),
            "an evaluation is missing"
        );
        Ok(FakeFinishing {
            state,
            slices_left: self.finish_slices.map_or(1, NonZeroU32::get),
        })
    }

    fn advance_finish(&mut self, finishing: &mut FakeFinishing) -> Result<FinishStep, ExecutorError> {
        let FakeFinishing { state, slices_left } = finishing;
        self.note(SeenAct::Finish(state.seen.clone()));
        if let Some(kind) = self.faults.strike(&state.seen.prompt, FaultAt::Finish) {
            return Err(fail(kind, "finish"));
        }
        *slices_left = slices_left.checked_sub(1).expect("a slice too many");
        if *slices_left > 0 {
            return Ok(FinishStep::Continue);
        }
        let index = state.seen.seed.wrapping_sub(state.input.recipe.seed);
        let index = u32::try_from(index).expect("seeds count up from the request's");
        Ok(FinishStep::Done(FinishedImage {
            image: Self::image_of(&state.input, index),
            findings: Findings::default(),
            precision: Precision::F32,
        }))
    }
}
