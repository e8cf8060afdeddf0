//! The real networks of the embedded demo model behind the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_types::{
    ErrorKind, HasKind, Inputs, JobId, MemoryBudget, MemoryLedger, MemoryUse, ModelId, Recipe, RgbImage,
    SchedulerChoice, SchedulerKind, Size, SystemClock, describe_chain,
};

use super::{PipelineExecutor, PipelineFinishing, PipelinePreparation, PipelineState};
use crate::{
    BatchPolicy, Engine, EngineHandle, Executor, ExecutorError, FinishStep, JobEvent, JobEvents,
    ModelLoader as _, ModelOf, PipelineLoader, PrepareStep, ResolvedJob, ResolvedModels,
};

/// Notes the images of the fullest forward.
struct Counted(PipelineExecutor, Arc<AtomicUsize>);

impl Executor for Counted {
    type Loader = PipelineLoader;
    type Preparation = PipelinePreparation;
    type State = PipelineState;
    type Finishing = PipelineFinishing;

    fn loader(&self) -> PipelineLoader {
        self.0.loader()
    }

    fn begin(
        &mut self,
        input: &ResolvedJob,
        model: &ModelOf<Self>,
    ) -> Result<PipelinePreparation, ExecutorError> {
        self.0.begin(input, model)
    }

    fn advance(
        &mut self,
        preparation: &mut PipelinePreparation,
    ) -> Result<PrepareStep<PipelineState>, ExecutorError> {
        self.0.advance(preparation)
    }

    fn images_that_fit(&mut self, states: &[&PipelineState]) -> usize {
        self.0.images_that_fit(states)
    }

    fn denoise(&mut self, states: &mut [&mut PipelineState]) -> Result<(), ExecutorError> {
        self.1.fetch_max(states.len(), Ordering::Relaxed);
        self.0.denoise(states)
    }

    fn preview(&self, state: &PipelineState) -> Option<RgbImage> {
        self.0.preview(state)
    }

    fn begin_finish(&mut self, state: PipelineState) -> Result<PipelineFinishing, ExecutorError> {
        self.0.begin_finish(state)
    }

    fn advance_finish(&mut self, finishing: &mut PipelineFinishing) -> Result<FinishStep, ExecutorError> {
        self.0.advance_finish(finishing)
    }
}

fn start() -> (EngineHandle, Arc<AtomicUsize>) {
    let fullest = Arc::new(AtomicUsize::new(0));
    let executor = Counted(PipelineExecutor::cpu(), Arc::clone(&fullest));
    let (handle, _thread) =
        Engine::start(executor, BatchPolicy::cpu(), Arc::new(SystemClock)).expect("a thread starts");
    (handle, fullest)
}

fn input(source: &str, prompt: &str, seed: u64) -> ResolvedJob {
    let size = Size {
        width: 60,
        height: 64,
    };
    let pixels = (0..60 * 64 * 3)
        .map(|at: u32| u8::try_from(at * 7 % 251).expect("below 251"))
        .collect();
    let recipe = Recipe {
        model: ModelId::new(source),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: prompt.to_owned(),
        negative_prompt: None,
        image_count: 1,
        steps: 4,
        strength: 0.8,
        guidance_scale: 1.0,
        seed,
        clip_skip: 1,
        token_merging: false,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            ..SchedulerChoice::default()
        },
        framing: None,
        soft_edge: 0,
        differential_diffusion: false,
        keeps_everything: false,
        ip_adapter: None,
    };
    let checkpoint = ModelEntry::new(source, ModelKind::Checkpoint, Source::Embedded(source.to_owned()));
    ResolvedJob {
        recipe: Arc::new(recipe),
        models: ResolvedModels::checkpoint(Arc::new(checkpoint)),
        images: Inputs::new(RgbImage::new(size, pixels).expect("the length fits")),
    }
}

fn images(mut events: JobEvents) -> Vec<RgbImage> {
    let mut images = Vec::new();
    while let Some(event) = events.blocking_next() {
        match event {
            JobEvent::Image { index, finished } => images.push((index, finished.image)),
            JobEvent::Started | JobEvent::Progress(_) | JobEvent::Preview { .. } | JobEvent::Finished => {}
            JobEvent::Failed(error) => panic!("{}", describe_chain(&error)),
            JobEvent::Cancelled => panic!("nobody cancels"),
        }
    }
    images.sort_by_key(|(index, _)| *index);
    images.into_iter().map(|(_, image)| image).collect()
}

#[test]
fn jobs_of_every_kind_get_the_same_bytes_alone_and_in_company() {
    let inputs = [
        input("demo", "a red house", 1),
        {
            let mut guided = input("demo", "a boat at night", 2);
            let request = Arc::make_mut(&mut guided.recipe);
            (request.guidance_scale, request.strength) = (5.0, 0.6);
            request.scheduler.kind = Some(SchedulerKind::EulerDiscrete);
            guided
        },
        {
            let mut many = input("demo", "green hills", 3);
            let request = Arc::make_mut(&mut many.recipe);
            (request.image_count, request.steps) = (3, 7);
            request.scheduler.kind = Some(SchedulerKind::DDIM);
            many
        },
    ];
    let (handle, fullest) = start();
    let run = |(id, input): (u128, &ResolvedJob)| {
        handle
            .generate(JobId::from_u128(id), input.clone())
            .expect("there is room")
    };
    let alone: Vec<_> = (1..).zip(&inputs).map(|numbered| images(run(numbered))).collect();
    assert!(
        fullest.load(Ordering::Relaxed) <= 3,
        "a job alone has its own images only"
    );
    let together: Vec<JobEvents> = (11..).zip(&inputs).map(run).collect();
    let together: Vec<_> = together.into_iter().map(images).collect();
    assert!(fullest.load(Ordering::Relaxed) > 3, "the jobs shared forwards");
    assert!(alone == together, "company changed an image");
    assert_eq!(alone[2].len(), 3);
    assert_ne!(alone[2][0], alone[2][1], "each image has its own seed");
    assert_eq!(alone[0][0].size(), inputs[0].images.size());
    assert_eq!(handle.resident_models(), ["demo"]);
}

#[test]
fn every_waiter_of_a_model_that_cannot_be_loaded_learns_why() {
    let (handle, _) = start();
    let jobs: Vec<JobEvents> = (1..=3)
        .map(|id| {
            handle
                .generate(JobId::from_u128(id), input("nonsense", "x", 1))
                .expect("there is room")
        })
        .collect();
    for mut events in jobs {
        let Some(JobEvent::Failed(error)) = events.blocking_next() else {
            panic!("it cannot be loaded")
        };
        assert_eq!(error.kind(), ErrorKind::BadModel);
        let chain = describe_chain(&error);
        assert!(chain.contains("there is no embedded model `nonsense`"), "{chain}");
    }
}

#[test]
fn a_prompt_of_too_many_tokens_is_refused_with_its_number() {
    let executor = PipelineExecutor::cpu().with_max_prompt_tokens(80);
    let (handle, _thread) =
        Engine::start(executor, BatchPolicy::cpu(), Arc::new(SystemClock)).expect("a thread starts");
    let refused = |input| {
        let mut events = handle.generate(JobId::new(), input).expect("there is room");
        let news = [events.blocking_next(), events.blocking_next()];
        match news {
            [Some(JobEvent::Started), Some(JobEvent::Failed(error))] => error,
            other => panic!("it is too long: {other:?}"),
        }
    };
    let long = refused(input("demo", &"boat ".repeat(81), 1));
    assert_eq!(long.kind(), ErrorKind::InvalidInput);
    let text = describe_chain(&long);
    assert!(
        text.ends_with("prompt has 81 tokens, and at most 80 are taken"),
        "{text}"
    );
    let mut negative = input("demo", "a boat", 1);
    Arc::make_mut(&mut negative.recipe).negative_prompt = Some("blurred ".repeat(100));
    let text = describe_chain(&refused(negative));
    assert!(text.contains("negative_prompt has 100 tokens"), "{text}");
    let events = handle.generate(JobId::new(), input("demo", &"boat ".repeat(80), 1));
    assert_eq!(images(events.expect("there is room")).len(), 1);
}

#[test]
fn what_a_prompt_takes_is_counted_and_given_back_with_the_last_image() {
    let memory = MemoryLedger::new(MemoryBudget {
        states: 2 << 20,
        ..MemoryBudget::UNBOUNDED
    });
    let mut executor = PipelineExecutor::cpu_within(Arc::clone(&memory));
    let models = input("demo", "a boat", 1).models;
    let model = executor.loader().load(&models).expect("it is in the binary");
    let held = || memory.held(MemoryUse::States);
    let many = executor.begin(&input("demo", &"boat ".repeat(2000), 1), &model);
    let error = many.expect_err("its keys and values do not fit");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let mut job = input("demo", "a boat", 1);
    Arc::make_mut(&mut job.recipe).image_count = 2;
    let mut preparation = executor.begin(&job, &model).expect("it fits");
    let counted = held();
    assert!(counted > 0);
    let mut images = loop {
        match executor.advance(&mut preparation).expect("it works") {
            PrepareStep::Continue { in_pass: _ } => {}
            PrepareStep::Done(prepared) => break prepared.images,
        }
    };
    drop(preparation);
    images.pop();
    assert_eq!(held(), counted);
    images.pop();
    assert_eq!(held(), 0);
}
