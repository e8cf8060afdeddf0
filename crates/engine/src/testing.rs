//! A device without networks, for tests of everything above the executor.
//!
//! A picture is made from its request alone (the input, tinted by seed and prompt), evaluations follow steps and
//! strength as in the real pipeline, and acts can be told to fail. Nothing here waits.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::{ErrorKind, Findings, RgbPicture};

use crate::executor::PreparedPicture;
use crate::{BatchKey, Executor, ExecutorError, ExtraInputs, FinishedImage, Prepared, ResolvedJob};

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
    /// In `prepare`.
    Prepare,
    /// In the evaluation with this number, from 0, of any of the job's pictures.
    Evaluation(u32),
    /// In `finish`.
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

/// One picture in one act, as the fake saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPicture {
    /// The request's prompt.
    pub prompt: String,
    /// The picture's own seed.
    pub seed: u64,
    /// Evaluations it had behind it.
    pub evaluation: u32,
    /// Rows it brought.
    pub rows: u32,
}

/// One call of the executor, recorded before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenAct {
    /// `prepare` of the job with this prompt.
    Prepare {
        /// The request's prompt.
        prompt: String,
    },
    /// `denoise`.
    Denoise {
        /// The key of all pictures.
        key: BatchKey,
        /// The pictures.
        pictures: Vec<SeenPicture>,
    },
    /// `finish`.
    Finish(SeenPicture),
}

type Hook = Box<dyn FnMut(&SeenAct) + Send>;

/// The fake device.
#[derive(Default)]
pub struct FakeExecutor {
    faults: Vec<Fault>,
    memory_rows: Option<u32>,
    acts: Arc<Mutex<Vec<SeenAct>>>,
    hook: Option<Hook>,
    models: Vec<String>,
}

impl fmt::Debug for FakeExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeExecutor")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// What a picture carries in the fake.
#[derive(Debug)]
pub struct FakeState {
    input: ResolvedJob,
    key: BatchKey,
    seen: SeenPicture,
    torn: bool,
}

/// Reads what a [`FakeExecutor`] was told, while it runs on its own thread.
#[derive(Clone, Debug)]
pub struct Recording(Arc<Mutex<Vec<SeenAct>>>);

impl Recording {
    /// All acts so far, in order.
    #[must_use]
    pub fn acts(&self) -> Vec<SeenAct> {
        lock(&self.0).clone()
    }

    /// The pictures of each forward so far.
    #[must_use]
    pub fn forwards(&self) -> Vec<Vec<SeenPicture>> {
        let acts = self.acts().into_iter();
        acts.filter_map(|act| match act {
            SeenAct::Denoise { key: _, pictures } => Some(pictures),
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
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// A device that runs out of memory when a forward has more rows than this.
    #[must_use]
    pub fn with_memory_for(mut self, rows: u32) -> Self {
        self.memory_rows = Some(rows);
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
        Recording(Arc::clone(&self.acts))
    }

    fn note(&mut self, act: SeenAct) {
        lock(&self.acts).push(act.clone());
        if let Some(hook) = &mut self.hook {
            hook(&act);
        }
    }

    /// The fault that strikes now, if any.
    fn strike(&mut self, prompt: &str, at: FaultAt) -> Option<FaultKind> {
        let strikes =
            |fault: &&mut Fault| fault.at == at && fault.times > 0 && prompt.contains(&fault.prompt);
        let fault = self.faults.iter_mut().find(strikes)?;
        fault.times = fault.times.saturating_sub(1);
        Some(fault.kind)
    }

    /// The picture that a request gets from any fake device, alone or in company.
    ///
    /// # Panics
    /// Never: the picture has the size of the input.
    #[must_use]
    pub fn picture_of(input: &ResolvedJob, index: u32) -> RgbPicture {
        let request = &input.recipe;
        let mut hasher = DefaultHasher::new();
        (request.seed.wrapping_add(u64::from(index)), &request.prompt).hash(&mut hasher);
        let tint = if evaluations(input) == 0 {
            [0; 8]
        } else {
            hasher.finish().to_le_bytes()
        };
        let pixels = input.images.init().pixels().iter().enumerate();
        let pixels = pixels.map(|(at, value)| value ^ tint[at % 3]).collect();
        RgbPicture::new(input.images.init().size(), pixels).expect("as many bytes as the input has")
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "steps times strength fits u32"
)]
fn evaluations(input: &ResolvedJob) -> u32 {
    let request = &input.recipe;
    let run = (f64::from(request.steps) * request.strength) as u32;
    if request.strength > 0.0 {
        run.clamp(1, request.steps)
    } else {
        0
    }
}

fn fail(kind: FaultKind, act: &'static str) -> ExecutorError {
    let source: crate::SharedSource = Arc::new(std::io::Error::other("a fault that a test asked for"));
    match kind {
        FaultKind::Error(kind) => ExecutorError::Failed { act, kind, source },
        FaultKind::OutOfMemory => ExecutorError::OutOfDeviceMemory { act, source },
        FaultKind::DeviceLost => ExecutorError::DeviceLost { source },
        #[expect(clippy::panic, reason = "a test asked for it")]
        FaultKind::Panic => panic!("a panic that a test asked for"),
    }
}

impl Executor for FakeExecutor {
    type State = FakeState;

    fn prepare(&mut self, input: &ResolvedJob) -> Result<Prepared<FakeState>, ExecutorError> {
        let request = &input.recipe;
        self.note(SeenAct::Prepare {
            prompt: request.prompt.clone(),
        });
        if let Some(kind) = self.strike(&request.prompt, FaultAt::Prepare) {
            return Err(fail(kind, "prepare"));
        }
        let name = &input.models.checkpoint.name;
        if !self.models.contains(name) {
            self.models.push(name.clone());
        }
        let key = BatchKey {
            model: input.model_key(),
            latent: input.latent_size(),
            context_tokens: 77,
            extra_inputs: ExtraInputs::default(),
        };
        let rows = if request.guidance_scale > 1.0 { 2 } else { 1 };
        let pictures = (0..request.image_count).map(|index| {
            let seen = SeenPicture {
                prompt: request.prompt.clone(),
                seed: request.seed.wrapping_add(u64::from(index)),
                evaluation: 0,
                rows,
            };
            let state = FakeState {
                input: input.clone(),
                key: key.clone(),
                seen,
                torn: false,
            };
            PreparedPicture {
                state,
                evaluations: evaluations(input),
                rows,
            }
        });
        Ok(Prepared {
            pictures: pictures.collect(),
            key: key.clone(),
        })
    }

    fn denoise(&mut self, states: &mut [&mut FakeState]) -> Result<(), ExecutorError> {
        let key = states
            .first()
            .expect("the engine gives at least one state")
            .key
            .clone();
        for state in states.iter() {
            assert_eq!(state.key, key, "pictures of two batch keys in one forward");
            assert!(!state.torn, "a torn state came back");
            assert!(
                state.seen.evaluation < evaluations(&state.input),
                "an evaluation too many"
            );
        }
        let pictures: Vec<SeenPicture> = states.iter().map(|state| state.seen.clone()).collect();
        let rows: u32 = pictures.iter().map(|picture| picture.rows).sum();
        self.note(SeenAct::Denoise {
            key,
            pictures: pictures.clone(),
        });
        if self.memory_rows.is_some_and(|room| rows > room) {
            return Err(fail(FaultKind::OutOfMemory, "denoise"));
        }
        for picture in &pictures {
            if let Some(kind) = self.strike(&picture.prompt, FaultAt::Evaluation(picture.evaluation)) {
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

    fn finish(&mut self, state: FakeState) -> Result<FinishedImage, ExecutorError> {
        assert!(!state.torn, "a torn state came back");
        assert_eq!(
            state.seen.evaluation,
            evaluations(&state.input),
            "an evaluation is missing"
        );
        self.note(SeenAct::Finish(state.seen.clone()));
        if let Some(kind) = self.strike(&state.seen.prompt, FaultAt::Finish) {
            return Err(fail(kind, "finish"));
        }
        let index = state.seen.seed.wrapping_sub(state.input.recipe.seed);
        let index = u32::try_from(index).expect("seeds count up from the request's");
        Ok(FinishedImage {
            image: Self::picture_of(&state.input, index),
            findings: Findings::default(),
        })
    }

    fn resident_models(&self) -> Vec<String> {
        self.models.clone()
    }
}
