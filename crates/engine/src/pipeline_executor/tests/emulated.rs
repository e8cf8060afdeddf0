//! The same on the emulated device: forwards as large as its memory, and what its faults come to.

use pentimento_gpu::{Emulation, Fault, Gpu, PlannedFault};
use pentimento_pipeline::{DenoiseState, Device, GpuDevice, Precision};

use super::*;
use crate::EngineError;

fn executor_on(gpu: &Gpu) -> PipelineExecutor {
    let device = Device::Gpu(GpuDevice::new(gpu.clone(), Precision::F32));
    let memory = MemoryLedger::new(MemoryBudget::UNBOUNDED);
    PipelineExecutor::on(device, memory, None)
}

/// A small picture of two evaluations: a fault is looked for at many places.
fn small(prompt: &str, seed: u64) -> ResolvedJob {
    let mut job = input("demo", prompt, seed);
    let recipe = Arc::make_mut(&mut job.recipe);
    (recipe.steps, recipe.strength) = (2, 1.0);
    job
}

fn prepared(executor: &mut PipelineExecutor, job: &ResolvedJob) -> Vec<PipelineState> {
    let model = executor.loader().load(&job.models).expect("it is in the binary");
    let mut preparation = executor.begin(job, &model).expect("it fits");
    loop {
        if let PrepareStep::Done(prepared) = executor.advance(&mut preparation).expect("it works") {
            return prepared.images.into_iter().map(|image| image.state).collect();
        }
    }
}

#[test]
fn a_forward_is_as_large_as_the_memory_says_to_the_byte() {
    let gpu = Gpu::emulated(Emulation::default());
    let mut executor = executor_on(&gpu);
    let mut job = small("a boat", 1);
    Arc::make_mut(&mut job.recipe).image_count = 3;
    let mut states = prepared(&mut executor, &job);
    gpu.release_arena();
    let held = gpu.used_bytes();
    let model = Arc::clone(&states[0].model);
    let needed = |states: &[PipelineState], count: usize| {
        let states: Vec<&DenoiseState> = states[..count].iter().map(|image| &image.state).collect();
        let memory = model.measure(&states).expect("it works").expect("it is a GPU");
        usize::try_from(memory.arena_bytes + memory.output_bytes).expect("it is small")
    };
    let sizes = [1, 2, 3].map(|count| needed(&states, count));
    assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2], "{sizes:?}");
    assert_eq!(gpu.used_bytes(), held, "measuring takes no memory");
    let mut fitting = |budget: usize| {
        gpu.set_budget(held + budget);
        executor.images_that_fit(&states.iter().collect::<Vec<_>>())
    };
    assert_eq!(fitting(sizes[2]), 3);
    assert_eq!(fitting(sizes[2] - 1), 2);
    assert_eq!(fitting(sizes[1]), 2);
    assert_eq!(fitting(sizes[1] - 1), 1);
    assert_eq!(fitting(0), 1, "one is tried whatever is known");
    // And that is what it takes.
    gpu.set_budget(held + sizes[1]);
    let (two, _) = states.split_at_mut(2);
    let mut two: Vec<&mut PipelineState> = two.iter_mut().collect();
    executor.denoise(&mut two).expect("it fits");
    gpu.set_budget(held + sizes[0] - 1);
    gpu.release_arena();
    let full = executor.denoise(&mut two[..1]).expect_err("it does not fit");
    assert_eq!(full.kind(), ErrorKind::OutOfDeviceMemory);
}

#[test]
fn jobs_that_do_not_fit_together_run_one_after_the_other_with_the_same_bytes() {
    let jobs = [("a red house", 1), ("a boat at night", 2), ("green hills", 3)]
        .map(|(prompt, seed)| small(prompt, seed));
    let run = |fullest_allowed: Option<usize>| {
        let gpu = Gpu::emulated(Emulation::default());
        let mut executor = executor_on(&gpu);
        if let Some(images) = fullest_allowed {
            // What this many images take, beside everything that is there while they run.
            let mut many = jobs[0].clone();
            Arc::make_mut(&mut many.recipe).image_count = 3;
            let states = prepared(&mut executor, &many);
            let states: Vec<&DenoiseState> = states.iter().map(|image| &image.state).collect();
            let model = executor.loader().load(&many.models).expect("it is in the binary");
            let sizes = [images, images + 1].map(|count| {
                let memory = model
                    .measure(&states[..count])
                    .expect("it works")
                    .expect("it is a GPU");
                usize::try_from(memory.arena_bytes + memory.output_bytes).expect("it is small")
            });
            gpu.release_arena();
            gpu.set_budget(gpu.used_bytes() + sizes[0] + (sizes[1] - sizes[0]) / 2);
        }
        let fullest = Arc::new(AtomicUsize::new(0));
        let counted = Counted(executor, Arc::clone(&fullest));
        let (handle, _thread) =
            Engine::start(counted, BatchPolicy::gpu(), Arc::new(SystemClock)).expect("a thread starts");
        let events: Vec<JobEvents> = (1..)
            .zip(&jobs)
            .map(|(id, job)| {
                handle
                    .generate(JobId::from_u128(id), job.clone())
                    .expect("there is room")
            })
            .collect();
        let made: Vec<_> = events.into_iter().map(images).collect();
        (made, fullest.load(Ordering::Relaxed))
    };
    let (expected, _) = run(None);
    let (found, fullest) = run(Some(1));
    assert!(found == expected, "less memory changed a picture");
    assert_eq!(fullest, 1);
}

/// The news of a job's end: its picture, or why there is none.
fn ended(mut events: JobEvents) -> Result<RgbImage, EngineError> {
    let mut image = None;
    while let Some(event) = events.blocking_next() {
        match event {
            JobEvent::Image { finished, .. } => image = Some(finished.image),
            JobEvent::Failed(error) => return Err(error),
            JobEvent::Started | JobEvent::Progress(_) | JobEvent::Preview { .. } | JobEvent::Finished => {}
            JobEvent::Cancelled => panic!("nobody cancels"),
        }
    }
    Ok(image.expect("it has finished"))
}

fn engine_with(fault: Option<PlannedFault>) -> (Gpu, EngineHandle) {
    let gpu = Gpu::emulated(Emulation {
        fault,
        ..Emulation::default()
    });
    let executor = executor_on(&gpu);
    let (handle, _thread) =
        Engine::start(executor, BatchPolicy::gpu(), Arc::new(SystemClock)).expect("a thread starts");
    (gpu, handle)
}

#[test]
fn an_allocation_that_finds_no_memory_costs_one_job_at_most() {
    let run = |handle: &EngineHandle, id: u128| {
        let events = handle.generate(JobId::from_u128(id), small("a boat", 1));
        ended(events.expect("there is room"))
    };
    let expected = run(&engine_with(None).1, 1).expect("nothing goes wrong");
    let mut failed = 0;
    // While the weights are loaded, while the texts are encoded, and later.
    for at in [1, 200, 600, 640, 655, 660, 665, 670] {
        let fault = PlannedFault {
            fault: Fault::OutOfMemory,
            at,
        };
        let (gpu, handle) = engine_with(Some(fault));
        match run(&handle, 1) {
            Ok(image) => assert!(image == expected, "allocation {at} changed the picture"),
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::OutOfDeviceMemory,
                    "allocation {at}: {error:?}"
                );
                failed += 1;
            }
        }
        assert!(!handle.is_lost());
        let next = run(&handle, 2).expect("the next job has its memory");
        assert!(next == expected, "allocation {at} changed the next picture");
        drop(handle);
        assert!(gpu.used_bytes() < gpu.budget_bytes());
    }
    assert!(failed > 0, "no fault was met");
}

#[test]
fn a_launch_that_fails_and_a_device_that_is_lost_end_the_engine() {
    for (fault, at) in [
        (Fault::LaunchFailure, 1),
        (Fault::LaunchFailure, 400),
        (Fault::DeviceLost, 50),
        (Fault::DeviceLost, 3000),
    ] {
        let (_gpu, handle) = engine_with(Some(PlannedFault { fault, at }));
        let events = handle.generate(JobId::from_u128(1), small("a boat", 1));
        let error = ended(events.expect("there is room")).expect_err("it is lost");
        assert!(
            matches!(error, EngineError::Executor(ExecutorError::DeviceLost { .. })),
            "{fault:?} at {at}: {error:?}"
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(handle.lost());
        assert!(handle.is_lost());
    }
}
