//! Single rules of the device thread over a fake device, one scene each.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_types::{
    Clock, ErrorKind, HasKind, Inputs, JobId, ManualClock, ModelId, Progress, Recipe, RgbImage,
    SchedulerChoice, Size,
};

use crate::testing::{FakeExecutor, Fault, FaultAt, FaultKind, SeenAct};
use crate::{
    BatchPolicy, Engine, EngineError, EngineHandle, EngineThread, ExecutorError, JobEvent, JobEvents,
    JobTerms, ResolvedJob, ResolvedModels,
};

/// A job of four evaluations whose prompt is its name.
pub(super) fn input(prompt: &str, image_count: u32) -> ResolvedJob {
    input_on("fake", prompt, image_count)
}

/// The same on another model.
pub(super) fn input_on(model: &str, prompt: &str, image_count: u32) -> ResolvedJob {
    let size = Size { width: 17, height: 9 };
    let pixels = (0..17 * 9 * 3)
        .map(|at| u8::try_from(at % 251).expect("below 251"))
        .collect();
    let recipe = Recipe {
        model: ModelId::new(model),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: prompt.to_owned(),
        negative_prompt: None,
        image_count,
        steps: 8,
        strength: 0.5,
        guidance_scale: 1.0,
        seed: 7,
        clip_skip: 1,
        token_merging: false,
        scheduler: SchedulerChoice::default(),
        framing: None,
        soft_edge: 0,
        differential_diffusion: false,
        keeps_everything: false,
        ip_adapter: None,
    };
    let checkpoint = ModelEntry::new(model, ModelKind::Checkpoint, Source::Embedded(model.to_owned()));
    ResolvedJob {
        recipe: Arc::new(recipe),
        models: ResolvedModels::checkpoint(Arc::new(checkpoint)),
        images: Inputs::new(RgbImage::new(size, pixels).expect("the length fits")),
    }
}

/// On a clock that stands still: every act counts for the same.
pub(super) fn start(executor: FakeExecutor, policy: BatchPolicy) -> (EngineHandle, EngineThread) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    Engine::start(executor, policy, Arc::new(clock)).expect("a thread starts")
}

/// Reads a job's news to the end.
pub(super) fn news(mut events: JobEvents) -> Vec<JobEvent> {
    std::iter::from_fn(|| events.blocking_next()).collect()
}

/// The job's images in order, when it finished.
pub(super) fn images(events: JobEvents) -> Vec<RgbImage> {
    let news = news(events);
    assert!(matches!(news.last(), Some(JobEvent::Finished)), "{news:?}");
    let mut images: Vec<(u32, RgbImage)> = news
        .into_iter()
        .filter_map(|event| match event {
            JobEvent::Image { index, finished } => Some((index, finished.image)),
            JobEvent::Started
            | JobEvent::Progress(_)
            | JobEvent::Preview { .. }
            | JobEvent::Finished
            | JobEvent::Failed(_)
            | JobEvent::Cancelled => None,
        })
        .collect();
    images.sort_by_key(|(index, _)| *index);
    images.into_iter().map(|(_, image)| image).collect()
}

pub(super) fn error(events: JobEvents) -> EngineError {
    match news(events).pop() {
        Some(JobEvent::Failed(error)) => error,
        other => panic!("the job did not fail: {other:?}"),
    }
}

/// A device that waits before each act until the sender says go or is dropped.
pub(super) fn held(executor: FakeExecutor) -> (FakeExecutor, mpsc::Sender<()>) {
    let (go, gate) = mpsc::channel();
    let executor = executor.with_hook(move |_| {
        let _ = gate.recv();
    });
    (executor, go)
}

pub(super) fn expected(input: &ResolvedJob) -> Vec<RgbImage> {
    (0..input.recipe.image_count)
        .map(|index| FakeExecutor::image_of(input, index))
        .collect()
}

#[test]
fn a_job_tells_its_progress_its_pictures_and_its_end() {
    let (handle, _thread) = start(FakeExecutor::new(), BatchPolicy::default());
    let input = input("a fox", 2);
    let events = handle
        .generate(JobId::from_u128(1), input.clone())
        .expect("there is room");
    let news = news(events);
    let starts = news.iter().filter(|event| matches!(event, JobEvent::Started));
    assert!(matches!(news.first(), Some(JobEvent::Started)));
    assert_eq!(starts.count(), 1);
    let progress: Vec<Progress> = news
        .iter()
        .filter_map(|event| match event {
            JobEvent::Progress(progress) => Some(*progress),
            JobEvent::Started
            | JobEvent::Preview { .. }
            | JobEvent::Image { .. }
            | JobEvent::Finished
            | JobEvent::Failed(_)
            | JobEvent::Cancelled => None,
        })
        .collect();
    let due: Vec<Progress> = [0, 2, 4, 6, 8]
        .into_iter()
        .map(|done| Progress { done, total: 8 })
        .collect();
    assert_eq!(progress, due);
    assert!(matches!(news.last(), Some(JobEvent::Finished)));
    assert_eq!(news.len(), 1 + 5 + 2 + 1);
    assert_eq!(handle.resident_models(), ["fake"]);
}

#[test]
fn strength_zero_gives_the_input_back_without_an_evaluation() {
    let executor = FakeExecutor::new();
    let recording = executor.recording();
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let mut input = input("a fox", 1);
    Arc::make_mut(&mut input.recipe).strength = 0.0;
    let events = handle
        .generate(JobId::from_u128(1), input.clone())
        .expect("there is room");
    assert_eq!(images(events), [input.images.init().unwrap().clone()]);
    assert!(recording.forwards().is_empty());
}

#[test]
fn the_door_refuses_at_once_when_the_engine_is_full() {
    let (executor, go) = held(FakeExecutor::new());
    let (handle, _thread) = start(
        executor,
        BatchPolicy {
            max_jobs: 2,
            ..BatchPolicy::default()
        },
    );
    let first = handle
        .generate(JobId::from_u128(1), input("one", 1))
        .expect("there is room");
    let second = handle
        .generate(JobId::from_u128(2), input("two", 1))
        .expect("there is room");
    let refused = handle
        .generate(JobId::from_u128(3), input("three", 1))
        .expect_err("it is full");
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    drop(go);
    images(first);
    // The place is free before the end is told.
    let third = handle
        .generate(JobId::from_u128(3), input("three", 1))
        .expect("one place is free again");
    images(second);
    images(third);
}

#[test]
fn the_same_id_twice_is_refused_and_harms_nobody() {
    let (executor, go) = held(FakeExecutor::new());
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let first = handle
        .generate(JobId::from_u128(1), input("one", 1))
        .expect("there is room");
    let twin = handle
        .generate(JobId::from_u128(1), input("one", 1))
        .expect("the thread decides");
    drop(go);
    assert_eq!(error(twin).kind(), ErrorKind::Conflict);
    images(first);
}

#[test]
fn a_cancelled_job_and_one_whose_caller_has_gone_end_before_the_next_act() {
    let (executor, go) = held(FakeExecutor::new());
    let recording = executor.recording();
    let (handle, thread) = start(executor, BatchPolicy::default());
    let mate = handle
        .generate(JobId::from_u128(1), input("mate", 1))
        .expect("there is room");
    let cancelled = handle
        .generate(JobId::from_u128(2), input("cancelled", 1))
        .expect("there is room");
    let dropped = handle
        .generate(JobId::from_u128(3), input("dropped", 1))
        .expect("there is room");
    // Each act waits for one go: three jobs are prepared between two evaluations.
    for _ in 0..6 {
        go.send(()).expect("the device waits");
    }
    let acts = || recording.acts().len();
    while acts() < 7 {
        std::thread::yield_now();
    }
    handle.cancel(JobId::from_u128(2));
    handle.cancel(JobId::from_u128(2));
    handle.cancel(JobId::from_u128(99));
    drop(dropped);
    let before = acts();
    drop(go);
    assert!(matches!(news(cancelled).last(), Some(JobEvent::Cancelled)));
    assert_eq!(images(mate), expected(&input("mate", 1)));
    for act in &recording.acts()[before..] {
        let prompts: Vec<&str> = match act {
            SeenAct::Prepare { prompt } => vec![prompt],
            SeenAct::Denoise { key: _, images } => images.iter().map(|seen| seen.prompt.as_str()).collect(),
            SeenAct::Finish(seen) => vec![&seen.prompt],
        };
        assert_eq!(
            prompts,
            ["mate"],
            "only the act that was running knows the others"
        );
    }
    assert_eq!(handle.status().jobs, 0);
    drop(handle);
    thread.join().expect("the thread ends with its last handle");
}

#[test]
fn only_the_guilty_job_fails_and_with_its_own_error() {
    for kind in [FaultKind::Error(ErrorKind::Internal), FaultKind::Panic] {
        for at in [
            FaultAt::Prepare,
            FaultAt::Evaluation(0),
            FaultAt::Evaluation(3),
            FaultAt::Finish,
        ] {
            let executor = FakeExecutor::new().with_fault(Fault::always("guilty", at, kind));
            let (handle, _thread) = start(executor, BatchPolicy::default());
            let names = ["one", "two", "guilty", "four"];
            let jobs: Vec<JobEvents> = (1..)
                .zip(names)
                .map(|(id, name)| {
                    handle
                        .generate(JobId::from_u128(id), input(name, 2))
                        .expect("there is room")
                })
                .collect();
            for (name, events) in names.into_iter().zip(jobs) {
                if name == "guilty" {
                    let error = error(events);
                    let panicked = matches!(error, EngineError::Panicked { .. });
                    assert_eq!(panicked, kind == FaultKind::Panic, "{error:?}");
                    assert_eq!(error.kind(), ErrorKind::Internal);
                } else {
                    assert_eq!(
                        images(events),
                        expected(&input(name, 2)),
                        "{name} with {kind:?} {at:?}"
                    );
                }
            }
            assert!(handle.status().healthy);
        }
    }
}

#[test]
fn a_panic_in_company_that_does_not_come_back_costs_nobody_the_picture() {
    let executor =
        FakeExecutor::new().with_fault(Fault::once("two", FaultAt::Evaluation(2), FaultKind::Panic));
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let jobs: Vec<(ResolvedJob, JobEvents)> = (1..)
        .zip(["one", "two", "three"])
        .map(|(id, name)| {
            let input = input(name, 3);
            (
                input.clone(),
                handle
                    .generate(JobId::from_u128(id), input)
                    .expect("there is room"),
            )
        })
        .collect();
    for (input, events) in jobs {
        assert_eq!(images(events), expected(&input));
    }
}

#[test]
fn after_an_error_that_does_not_come_back_the_jobs_share_forwards_again() {
    let fault = Fault::once(
        "two",
        FaultAt::Evaluation(1),
        FaultKind::Error(ErrorKind::Internal),
    );
    let executor = FakeExecutor::new().with_fault(fault);
    let recording = executor.recording();
    let (executor, go) = held(executor);
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let jobs: Vec<JobEvents> = (1..)
        .zip(["one", "two", "three"])
        .map(|(id, name)| {
            let mut input = input(name, 1);
            Arc::make_mut(&mut input.recipe).steps = 40;
            handle
                .generate(JobId::from_u128(id), input)
                .expect("there is room")
        })
        .collect();
    drop(go);
    for events in jobs {
        images(events);
    }
    let sizes: Vec<usize> = recording.forwards().iter().map(Vec::len).collect();
    let alone = sizes.iter().filter(|size| **size == 1).count();
    assert!(
        alone <= 8,
        "each runs alone once, and while the others come and go: {sizes:?}"
    );
    assert!(sizes.iter().filter(|size| **size == 3).count() >= 15, "{sizes:?}");
}

#[test]
fn out_of_memory_makes_forwards_smaller_and_fails_only_what_never_fits() {
    let executor = FakeExecutor::new().with_memory_for(3);
    let recording = executor.recording();
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let events = handle
        .generate(JobId::from_u128(1), input("many", 8))
        .expect("there is room");
    assert_eq!(images(events), expected(&input("many", 8)));
    let sizes: Vec<usize> = recording.forwards().iter().map(Vec::len).collect();
    assert_eq!(sizes[..3], [8, 4, 2]);
    assert!(
        sizes[2..].iter().all(|size| *size <= 2),
        "the smaller size is kept: {sizes:?}"
    );

    let (handle, _thread) = start(FakeExecutor::new().with_memory_for(1), BatchPolicy::default());
    let small = handle
        .generate(JobId::from_u128(1), input("small", 2))
        .expect("there is room");
    let mut guided = input("guided", 1);
    Arc::make_mut(&mut guided.recipe).guidance_scale = 7.5;
    let guided = handle
        .generate(JobId::from_u128(2), guided)
        .expect("there is room");
    assert_eq!(error(guided).kind(), ErrorKind::OutOfDeviceMemory);
    images(small);
}

#[test]
fn a_lost_device_ends_all_jobs_as_unavailable_and_closes_the_door() {
    let executor = FakeExecutor::new().with_fault(Fault::always(
        "last",
        FaultAt::Evaluation(1),
        FaultKind::DeviceLost,
    ));
    let (executor, go) = held(executor);
    let (handle, thread) = start(executor, BatchPolicy::default());
    let one = handle
        .generate(JobId::from_u128(1), input("one", 1))
        .expect("there is room");
    let last = handle
        .generate(JobId::from_u128(2), input("last", 1))
        .expect("there is room");
    drop(go);
    assert_eq!(error(one).kind(), ErrorKind::Unavailable);
    assert_eq!(error(last).kind(), ErrorKind::Unavailable);
    thread.join().expect("the thread ends in order");
    assert!(!handle.status().healthy);
    let refused = handle
        .generate(JobId::from_u128(3), input("three", 1))
        .expect_err("nobody is there");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[test]
fn a_device_that_is_lost_while_a_model_loads_ends_all_jobs_too() {
    let fault = Fault::always("bad", FaultAt::Load, FaultKind::DeviceLost);
    let (handle, thread) = start(FakeExecutor::new().with_fault(fault), BatchPolicy::default());
    let jobs = [1, 2].map(|number| {
        let job = handle.generate(JobId::from_u128(number), input_on("bad", "picture", 1));
        job.expect("there is room")
    });
    for job in jobs {
        let lost = error(job);
        let is_lost = matches!(&lost, EngineError::Executor(ExecutorError::DeviceLost { .. }));
        assert!(is_lost || lost.kind() == ErrorKind::Unavailable, "{lost:?}");
    }
    thread.join().expect("the thread ends in order");
    assert!(!handle.status().healthy);
}

#[test]
fn a_deadline_is_kept_while_waiting_and_while_running() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let hand = clock.clone();
    let executor = FakeExecutor::new().with_hook(move |_| hand.advance(Duration::from_secs(1)));
    let now = clock.now();
    let (handle, _thread) =
        Engine::start(executor, BatchPolicy::default(), Arc::new(clock)).expect("a thread starts");
    let until = |seconds| Some(now + Duration::from_secs(seconds));
    let late = handle
        .generate_until(JobId::from_u128(1), input("late", 1), until(3))
        .expect("there is room");
    let expired = handle
        .generate_until(JobId::from_u128(2), input("expired", 1), until(0))
        .expect("there is room");
    assert_eq!(error(late).kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(error(expired).kind(), ErrorKind::DeadlineExceeded);
    let plain = handle
        .generate(JobId::from_u128(3), input("plain", 1))
        .expect("there is room");
    images(plain);
}

#[tokio::test]
async fn shutdown_lets_jobs_finish_within_the_grace() {
    let (executor, go) = held(FakeExecutor::new());
    let (handle, thread) = start(executor, BatchPolicy::default());
    let mut events = handle
        .generate(JobId::from_u128(1), input("one", 1))
        .expect("there is room");
    let stopping = tokio::spawn({
        let handle = handle.clone();
        async move { handle.shutdown(Duration::from_secs(600)).await }
    });
    while handle.generate(JobId::from_u128(2), input("two", 1)).is_ok() {
        tokio::task::yield_now().await;
    }
    let refused = handle
        .generate(JobId::from_u128(3), input("three", 1))
        .expect_err("the door is closed");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    drop(go);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(JobEvent::Finished)));
    stopping.await.expect("shutdown returns");
    thread.join().expect("the thread has ended");
}

#[tokio::test]
async fn shutdown_without_grace_ends_jobs_at_the_next_step_boundary() {
    let (executor, go) = held(FakeExecutor::new());
    let recording = executor.recording();
    let (handle, thread) = start(executor, BatchPolicy::default());
    let mut events = handle
        .generate(JobId::from_u128(1), input("one", 1))
        .expect("there is room");
    go.send(()).expect("the device waits");
    while recording.acts().len() < 2 {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::spawn({
        let handle = handle.clone();
        async move { handle.shutdown(Duration::ZERO).await }
    });
    while handle.generate(JobId::from_u128(2), input("two", 1)).is_ok() {
        tokio::task::yield_now().await;
    }
    drop(go);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert!(
        matches!(last, Some(JobEvent::Failed(EngineError::ShuttingDown))),
        "{last:?}"
    );
    stopping.await.expect("shutdown returns");
    thread.join().expect("the thread has ended");
    assert_eq!(recording.acts().len(), 2, "no act began after the shutdown");
}

#[test]
fn who_looks_sees_the_images_in_turn_and_gets_the_same_ones_as_who_does_not() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let moving = clock.clone();
    let executor = FakeExecutor::new().with_hook(move |_| moving.advance(Duration::from_millis(100)));
    let (handle, _thread) =
        Engine::start(executor, BatchPolicy::default(), Arc::new(clock)).expect("a thread starts");
    let input = input("a fox", 2);
    // Both images have each of the four forwards, 100 ms apart; the fake's previews are as wide as evaluations have run.
    for (id, wanted, shown) in [(1, true, vec![(0, 1), (1, 4)]), (2, false, Vec::new())] {
        let terms = JobTerms::default();
        terms.previews.set(wanted);
        let place = handle.reserve(input.image_bytes()).expect("there is room");
        let events = handle.generate_in(place, JobId::from_u128(id), input.clone(), terms);
        let news = news(events.expect("the thread runs"));
        let mut previews = Vec::new();
        let mut images = Vec::new();
        for event in news {
            match event {
                JobEvent::Preview { index, image } => previews.push((index, image.size().width)),
                JobEvent::Image { index, finished } => images.push((index, finished.image)),
                JobEvent::Started
                | JobEvent::Progress(_)
                | JobEvent::Finished
                | JobEvent::Failed(_)
                | JobEvent::Cancelled => {}
            }
        }
        assert_eq!(previews, shown);
        images.sort_by_key(|(index, _)| *index);
        let images: Vec<RgbImage> = images.into_iter().map(|(_, image)| image).collect();
        assert_eq!(images, expected(&input));
    }
}

#[test]
fn a_job_that_gives_its_input_back_asks_neither_the_device_nor_a_model() {
    let (seen, acts) = mpsc::channel();
    let executor = FakeExecutor::new().with_hook(move |act| {
        let _ = seen.send(act.clone());
    });
    let (engine, thread) = start(executor, BatchPolicy::default());
    let mut input = input("a fox", 3);
    let recipe = Arc::make_mut(&mut input.recipe);
    recipe.strength = 0.0;
    let init = input.images.init().unwrap().clone();
    let mut events = engine.generate(JobId::from_u128(1), input).unwrap();
    assert!(matches!(events.blocking_next(), Some(JobEvent::Started)));
    assert_eq!(
        engine.status().jobs,
        1,
        "its place is taken while its images wait"
    );
    let mut images = Vec::new();
    let end = loop {
        match events.blocking_next() {
            Some(JobEvent::Image { index, finished }) => images.push((index, finished.image)),
            Some(JobEvent::Progress(progress)) => assert_eq!(progress, Progress::default()),
            end => break end,
        }
    };
    assert!(matches!(end, Some(JobEvent::Finished)), "{end:?}");
    assert_eq!(images, [(0, init.clone()), (1, init.clone()), (2, init)]);
    drop(events);
    assert_eq!(engine.status().jobs, 0);
    assert_eq!(engine.resident_models(), Vec::<String>::new());
    assert!(acts.try_recv().is_err());
    drop(engine);
    thread.join().unwrap();
}
