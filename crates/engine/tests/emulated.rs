//! The engine on the emulated device: forwards as large as its memory, and what its faults come to.

use std::sync::{Arc, LazyLock};

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_engine::{
    BatchKey, BatchPolicy, Device, Engine, EngineError, EngineHandle, Executor as _, ExecutorError,
    FinishStep, GpuDevice, JobEvent, JobEvents, ModelLoader as _, PipelineExecutor, PipelineState, Precision,
    PrepareStep, ResolvedJob, ResolvedModels,
};
use pentimento_gpu::{Emulation, Fault, Gpu, PlannedFault};
use pentimento_pipeline::{DenoiseState, StableDiffusion, seeded};
use pentimento_types::{
    ErrorKind, HasKind as _, Inputs, JobId, MemoryBudget, MemoryLedger, ModelId, Recipe, RgbImage,
    SchedulerChoice, SchedulerKind, Size, SystemClock,
};
use tempfile::TempDir;

fn device_on(gpu: &Gpu) -> Device {
    Device::Gpu(GpuDevice::new(gpu.clone(), Precision::F32))
}

fn executor_on(gpu: &Gpu) -> PipelineExecutor {
    let memory = MemoryLedger::new(MemoryBudget::UNBOUNDED);
    PipelineExecutor::on(device_on(gpu), memory, None)
}

/// A small picture of two evaluations by a network of width 32, since the emulator is slow.
fn small(prompt: &str, seed: u64, image_count: u32) -> ResolvedJob {
    static TINY: LazyLock<TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        seeded::write_checkpoint(seeded::Shape::Tiny, 1, folder.path()).expect("it can be written");
        folder
    });
    let recipe = Recipe {
        prompt: prompt.to_owned(),
        image_count,
        steps: 2,
        strength: 1.0,
        guidance_scale: 1.0,
        seed,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            ..SchedulerChoice::default()
        },
        ..Recipe::of_model(ModelId::new("tiny"))
    };
    let size = Size {
        width: 60,
        height: 64,
    };
    let pixels = (0..60 * 64 * 3).map(|at: u32| u8::try_from(at * 7 % 251).expect("below 251"));
    let source = Source::Path(TINY.path().to_owned());
    let entry = ModelEntry::new("tiny", ModelKind::Checkpoint, source);
    ResolvedJob {
        recipe: Arc::new(recipe),
        models: ResolvedModels::checkpoint(Arc::new(entry)),
        images: Inputs::new(RgbImage::new(size, pixels.collect()).expect("the length fits")),
    }
}

/// Bytes that forwards of 1, 2 and 3 images of such a job take beside everything that is there while they run.
fn forwards(gpu: &Gpu, job: &ResolvedJob) -> [usize; 3] {
    let model = StableDiffusion::load(&job.models, &device_on(gpu)).expect("it loads");
    let init = job.images.init().expect("it has one");
    let states = model.prepare(&job.recipe, init).expect("it works");
    let held = gpu.used_bytes();
    let sizes = [1, 2, 3].map(|count| {
        let states: Vec<&DenoiseState> = states[..count].iter().collect();
        let memory = model.measure(&states).expect("it works").expect("it is a GPU");
        usize::try_from(memory.arena_bytes + memory.output_bytes).expect("it is small")
    });
    assert_eq!(gpu.used_bytes(), held, "measuring takes no memory");
    assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2], "{sizes:?}");
    sizes
}

fn prepared(executor: &mut PipelineExecutor, job: &ResolvedJob) -> Vec<PipelineState> {
    with_key(executor, job).1
}

/// The states of a job, and with which others they may run.
fn with_key(executor: &mut PipelineExecutor, job: &ResolvedJob) -> (BatchKey, Vec<PipelineState>) {
    let model = executor.loader().load(&job.models).expect("it loads");
    let mut preparation = executor.begin(job, &model).expect("it fits");
    loop {
        if let PrepareStep::Done(prepared) = executor.advance(&mut preparation).expect("it works") {
            let states = prepared.images.into_iter().map(|image| image.state);
            return (prepared.key, states.collect());
        }
    }
}

#[test]
fn a_forward_is_as_large_as_the_memory_says_to_the_byte() {
    let gpu = Gpu::emulated(Emulation::default());
    let job = small("a boat", 1, 3);
    let sizes = forwards(&Gpu::emulated(Emulation::default()), &job);
    let mut executor = executor_on(&gpu);
    let mut states = prepared(&mut executor, &job);
    gpu.release_arena();
    let held = gpu.used_bytes();
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
    gpu.release_arena();
    gpu.set_budget(held + sizes[0] - 1);
    let full = executor.denoise(&mut two[..1]).expect_err("it does not fit");
    assert_eq!(full.kind(), ErrorKind::OutOfDeviceMemory);
}

/// The pictures of a job, or why there are none.
fn ended(mut events: JobEvents) -> Result<Vec<RgbImage>, EngineError> {
    let mut images = Vec::new();
    while let Some(event) = events.blocking_next() {
        match event {
            JobEvent::Image { index, finished } => images.push((index, finished.image)),
            JobEvent::Failed(error) => return Err(error),
            JobEvent::Started | JobEvent::Progress(_) | JobEvent::Preview { .. } | JobEvent::Finished => {}
            // Nobody cancels; the caller sees that there are no pictures.
            JobEvent::Cancelled => return Err(EngineError::Stopped),
        }
    }
    images.sort_by_key(|(index, _)| *index);
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// One engine on these devices, each of which takes so many jobs.
fn engine_on_all(gpus: &[Gpu], max_jobs: usize) -> EngineHandle {
    let memory = MemoryLedger::new(MemoryBudget::UNBOUNDED);
    let devices = gpus
        .iter()
        .map(|gpu| (device_on(gpu), memory.part(MemoryBudget::UNBOUNDED)));
    let executors = PipelineExecutor::on_each(devices, None);
    let policy = BatchPolicy {
        max_jobs,
        ..BatchPolicy::gpu()
    };
    let (handle, _threads) =
        Engine::start_on(executors, policy, Arc::new(SystemClock), memory).expect("threads start");
    handle
}

fn engine_on(gpu: &Gpu) -> EngineHandle {
    let (handle, _thread) =
        Engine::start(executor_on(gpu), BatchPolicy::gpu(), Arc::new(SystemClock)).expect("a thread starts");
    handle
}

fn run(handle: &EngineHandle, id: u128, job: &ResolvedJob) -> Result<Vec<RgbImage>, EngineError> {
    let events = handle.generate(JobId::from_u128(id), job.clone());
    ended(events.expect("there is room"))
}

#[test]
fn less_memory_makes_more_forwards_and_the_same_pictures() {
    let job = small("green hills", 3, 3);
    let gpu = Gpu::emulated(Emulation::default());
    let expected = run(&engine_on(&gpu), 1, &job).expect("there is room for all");
    assert_eq!(expected.len(), 3);
    let sizes = forwards(&gpu, &job);
    // One after the other, in what the whole run has needed for one of them.
    let gpu = Gpu::emulated(Emulation::default());
    let handle = engine_on(&gpu);
    run(&handle, 1, &small("green hills", 3, 1)).expect("there is room for all");
    gpu.set_budget(gpu.used_bytes() + sizes[1]);
    assert_eq!(run(&handle, 2, &job).expect("there is room for one"), expected);
}

/// The room that a large picture has left for its activations is given to the weights of another model.
#[test]
fn the_arena_makes_room_for_another_model() {
    let gpu = Gpu::emulated(Emulation::default());
    let handle = engine_on(&gpu);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let job = small("a boat", 1, 3);
    // Pinned, so that it stays where it is.
    runtime
        .block_on(handle.load(job.models.clone(), true))
        .expect("it fits");
    let weights = gpu.used_bytes();
    run(&handle, 1, &job).expect("it works");
    let arena = gpu.release_arena();
    run(&handle, 2, &job).expect("it works");
    assert_eq!(gpu.used_bytes(), weights + arena);
    let folder = tempfile::tempdir().expect("a folder");
    seeded::write_checkpoint(seeded::Shape::Tiny, 2, folder.path()).expect("it can be written");
    let source = Source::Path(folder.path().to_owned());
    let other = ModelEntry::new("other", ModelKind::Checkpoint, source);
    let other = ResolvedModels::checkpoint(Arc::new(other));
    gpu.set_budget(2 * weights + arena / 2);
    runtime
        .block_on(handle.load(other, false))
        .expect("there is room for it");
    assert!(gpu.used_bytes() <= gpu.budget_bytes());
}

fn faulty(fault: Fault, at: usize) -> Gpu {
    Gpu::emulated(Emulation {
        fault: Some(PlannedFault { fault, at }),
        ..Emulation::default()
    })
}

#[test]
fn an_allocation_that_finds_no_memory_is_tried_again_and_costs_no_job() {
    let job = small("a boat", 1, 1);
    let expected =
        run(&engine_on(&Gpu::emulated(Emulation::default())), 1, &job).expect("nothing goes wrong");
    // The first one is met for certain, while the weights are loaded; the last ones may never come.
    for at in [1, 300, 600, 700, 705, 710, 720, 740] {
        let handle = engine_on(&faulty(Fault::OutOfMemory, at));
        for number in [1, 2] {
            let images = run(&handle, number, &job).expect("there is memory for the second try");
            assert_eq!(images, expected, "allocation {at} changed picture {number}");
        }
        assert!(!handle.is_lost());
    }
}

#[test]
fn a_launch_that_fails_and_a_device_that_is_lost_end_the_engine() {
    for (fault, at) in [
        (Fault::LaunchFailure, 1),
        (Fault::LaunchFailure, 400),
        (Fault::DeviceLost, 50),
        (Fault::DeviceLost, 2500),
    ] {
        let handle = engine_on(&faulty(fault, at));
        let error = run(&handle, 1, &small("a boat", 1, 1)).expect_err("it is lost");
        assert!(
            matches!(error, EngineError::Executor(ExecutorError::DeviceLost { .. })),
            "{fault:?} at {at}: {error:?}"
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(handle.lost());
        assert!(handle.is_lost());
    }
}

#[test]
fn two_devices_behind_one_door_make_the_same_picture() {
    let gpus = [
        Gpu::emulated(Emulation::default()),
        Gpu::emulated(Emulation::default()),
    ];
    // One job each, so that the second goes to the other device.
    let handle = engine_on_all(&gpus, 1);
    let job = small("a boat", 1, 1);
    let events = [1, 2].map(|id| {
        let events = handle.generate(JobId::from_u128(id), job.clone());
        events.expect("there is room")
    });
    assert_eq!(
        handle.devices().iter().map(|device| device.jobs).sum::<usize>(),
        2
    );
    let full = handle.generate(JobId::from_u128(3), job.clone());
    assert!(
        matches!(full, Err(EngineError::Overloaded { limit: 2 })),
        "{full:?}"
    );
    let pictures = events.map(|events| ended(events).expect("nothing goes wrong"));
    assert_eq!(pictures[0], pictures[1]);
    let alone = engine_on(&Gpu::emulated(Emulation::default()));
    assert_eq!(pictures[0], run(&alone, 1, &job).expect("nothing goes wrong"));
    for (gpu, device) in gpus.iter().zip(handle.devices()) {
        let report = device.report.gpu.expect("it is a GPU");
        assert!(report.used_bytes > 0 && report.used_bytes == gpu.used_bytes() as u64);
        assert_eq!(
            (device.jobs, device.resident_models),
            (0, vec!["tiny".to_owned()])
        );
    }
    assert_eq!(
        handle.resident_models(),
        ["tiny"],
        "once, though it is there twice"
    );
    // What one has is thrown out of both.
    assert!(handle.evict("tiny") > 0);
    let left = handle.devices();
    assert!(
        left.iter().all(|device| device.resident_models.is_empty()),
        "{left:?}"
    );
}

#[test]
fn jobs_follow_their_model_and_a_lost_device_ends_them_all() {
    // The first one is lost when it is used for the second time.
    let lost = Gpu::emulated(Emulation {
        fault: Some(PlannedFault {
            fault: Fault::DeviceLost,
            at: 4000,
        }),
        ..Emulation::default()
    });
    let other = Gpu::emulated(Emulation::default());
    let handle = engine_on_all(&[lost.clone(), other.clone()], 8);
    let job = small("a boat", 1, 1);
    let mut made = 0;
    let error = loop {
        match run(&handle, made + 1, &job) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, EngineError::Executor(ExecutorError::DeviceLost { .. })),
        "{error:?}"
    );
    assert_eq!(other.used_bytes(), 0, "all jobs went where their model was");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(handle.lost());
    assert!(handle.is_lost());
    // The other one takes nothing any more either, and both threads end.
    runtime.block_on(handle.shutdown(std::time::Duration::ZERO));
    assert!(!handle.status().healthy);
    assert!(matches!(
        handle.generate(JobId::from_u128(99), job),
        Err(EngineError::ShuttingDown)
    ));
}

/// The tiny checkpoint, of whose VAE the numbers of one layer are doubled so often.
fn with_large(layer: &str, doublings: u16) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    seeded::write_checkpoint(seeded::Shape::Tiny, 1, folder.path()).expect("it can be written");
    let path = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let mut file = fs_err::read(&path).expect("it is there");
    let length: [u8; 8] = file[..8].try_into().expect("eight bytes");
    let data = 8 + usize::try_from(u64::from_le_bytes(length)).expect("it is short");
    let header: serde_json::Value = serde_json::from_slice(&file[8..data]).expect("it is JSON");
    let tensor = &header[layer];
    assert_eq!(tensor["dtype"], "F16", "of `{layer}`");
    let offset = |at: usize| {
        let number = tensor["data_offsets"][at].as_u64().expect("a number");
        data + usize::try_from(number).expect("it is small")
    };
    let (from, to) = (offset(0), offset(1));
    for bytes in file[from..to].chunks_exact_mut(2) {
        let half = u16::from_le_bytes(bytes.try_into().expect("two bytes"));
        // The exponent has five bits behind ten of the fraction; zeros and the smallest numbers have none.
        let exponent = half >> 10 & 0x1f;
        let grown = if exponent == 0 {
            half
        } else {
            half + (doublings.min(30 - exponent) << 10)
        };
        bytes.copy_from_slice(&grown.to_le_bytes());
    }
    fs_err::write(&path, file).expect("it can be written");
    folder
}

#[test]
fn an_autoencoder_that_leaves_the_range_of_f16_does_its_work_in_f32() {
    for layer in ["decoder.conv_in.weight", "encoder.conv_in.weight"] {
        let folder = with_large(layer, 16);
        let source = Source::Path(folder.path().to_owned());
        let entry = Arc::new(ModelEntry::new("large", ModelKind::Checkpoint, source));
        let job = |seed| ResolvedJob {
            models: ResolvedModels::checkpoint(Arc::clone(&entry)),
            ..small("a boat", seed, 1)
        };
        let made_in = |precision, pictures: u128| {
            let gpu = Gpu::emulated(Emulation::default());
            let device = Device::Gpu(GpuDevice::new(gpu, precision));
            let memory = MemoryLedger::new(MemoryBudget::UNBOUNDED);
            let executor = PipelineExecutor::on(device, memory, None);
            let (handle, _thread) =
                Engine::start(executor, BatchPolicy::gpu(), Arc::new(SystemClock)).expect("a thread starts");
            let made = (1..=pictures).map(|number| {
                // The next one is made after another load.
                let _ = handle.evict_idle();
                run(&handle, number, &job(7)).expect("it is computed again")[0].clone()
            });
            let made: Vec<RgbImage> = made.collect();
            let mut registry = prometheus_client::registry::Registry::default();
            handle.register_metrics(&mut registry);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("it can be written");
            (made, text)
        };
        let (narrow, counted) = made_in(Precision::F16, 2);
        assert!(
            counted.contains("\nvae_overflows_total 1\n"),
            "once, then it is known: {layer}: {counted}"
        );
        let (wide, counted) = made_in(Precision::F32, 1);
        assert!(
            counted.contains("\nvae_overflows_total 0\n"),
            "{layer}: {counted}"
        );
        // The first one was encoded in f16, if only the decoder overflows.
        for picture in &narrow {
            let pairs = picture.pixels().iter().zip(wide[0].pixels());
            let apart: u32 = pairs.map(|(one, other)| u32::from(one.abs_diff(*other))).sum();
            let mean = f64::from(apart) / wide[0].pixels().len() as f64;
            assert!(mean < 3.0, "{layer}: {mean} of 255");
        }
    }
}

/// What is set aside before a model is read is what it takes there, whatever the numbers of its files.
#[test]
fn weights_are_counted_by_what_they_take_on_the_device() {
    let plain = small("a boat", 1, 1);
    let set = with_lora(plain.clone(), 24, 1.0);
    for (precision, job) in [
        (Precision::F16, &plain),
        (Precision::F32, &plain),
        (Precision::F16, &set),
        (Precision::F32, &set),
    ] {
        let gpu = Gpu::emulated(Emulation::default());
        let device = Device::Gpu(GpuDevice::new(gpu.clone(), precision));
        let models = job.models.clone();
        let source = pentimento_pipeline::ModelSource::open(&models, &device).expect("it is there");
        for key in source.keys().expect("they can be looked at") {
            let base = key
                .base()
                .map(|base| source.read(&base, None).expect("it can be read").0);
            let before = gpu.used_bytes();
            let (component, size_bytes) = source.read(&key, base.as_ref()).expect("it can be read");
            let taken = (gpu.used_bytes() - before) as u64;
            let expected = source.expected_bytes(&key);
            // Text encoders have their tables in main memory, and room for states is a part of what they say.
            assert!(
                expected * 100 >= taken * 98 && expected * 9 <= size_bytes.max(taken) * 10 + (64 << 10),
                "{:?} in {precision}: {expected} expected, {taken} taken, {size_bytes} said",
                key.role()
            );
            drop(component);
        }
    }
}

/// The job with a LoRA of this rank and strength, which is written beside its checkpoint.
fn with_lora(job: ResolvedJob, rank: usize, strength: f64) -> ResolvedJob {
    let Source::Path(folder) = &job.models.checkpoint.source else {
        return job;
    };
    let path = folder.join(format!("style-{rank}.safetensors"));
    if !path.exists() {
        let recipe = (seeded::LoraLayers::Transformers, rank, 5);
        seeded::write_lora(folder, recipe, &path).expect("it can be written");
    }
    let lora = ModelEntry::new(&format!("style-{rank}"), ModelKind::Lora, Source::Path(path));
    ResolvedJob {
        models: ResolvedModels {
            loras: vec![(Arc::new(lora), strength)],
            ..job.models
        },
        ..job
    }
}

#[test]
fn jobs_with_different_loras_share_forwards_where_it_gains() {
    let job = |seed| small("a boat", seed, 1);
    let jobs = [with_lora(job(1), 2, 1.0), with_lora(job(2), 5, -0.7), job(3)];
    let memory = || MemoryLedger::new(MemoryBudget::UNBOUNDED);
    let mut cpu = PipelineExecutor::cpu_within(memory());
    let on_cpu = jobs.each_ref().map(|job| with_key(&mut cpu, job).0);
    for (number, key) in on_cpu.iter().enumerate() {
        assert!(
            !on_cpu[..number].contains(key),
            "a forward of a processor has one set"
        );
        assert_eq!(with_key(&mut cpu, &jobs[number]).0, *key);
    }
    let gpu = Gpu::emulated(Emulation::default());
    let mut executor = executor_on(&gpu);
    let prepared = jobs.each_ref().map(|job| with_key(&mut executor, job));
    assert!(
        prepared.iter().all(|(key, _)| *key == prepared[0].0),
        "{:?}",
        prepared[0].0
    );
    let mut states: Vec<PipelineState> = prepared.into_iter().flat_map(|(_, states)| states).collect();
    assert_eq!(executor.images_that_fit(&states.iter().collect::<Vec<_>>()), 3);
    for _ in 0..2 {
        executor
            .denoise(&mut states.iter_mut().collect::<Vec<_>>())
            .expect("it works");
    }
    let finished: Vec<RgbImage> = states
        .into_iter()
        .map(|state| {
            let mut finishing = executor.begin_finish(state).expect("it works");
            loop {
                if let FinishStep::Done(finished) = executor.advance_finish(&mut finishing).expect("it works")
                {
                    return finished.image;
                }
            }
        })
        .collect();
    let handle = engine_on(&Gpu::emulated(Emulation::default()));
    for (id, (job, together)) in (1..).zip(jobs.iter().zip(&finished).take(2)) {
        let alone = run(&handle, id, job).expect("it works");
        assert_eq!(alone, std::slice::from_ref(together), "picture {id}");
        let others = finished.iter().filter(|other| **other == alone[0]);
        assert_eq!(others.count(), 1, "each set makes another picture");
    }
}
