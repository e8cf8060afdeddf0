//! A second checkpoint is loaded while an LCM request of another model runs: how long do its evaluations take?
//!
//! `cargo run --release -p pentimento-engine --example load_beside [FOLDER [RUNNING]]` writes a checkpoint of Stable
//! Diffusion 1.5's shapes in half precision, 2 GB of seeded noise, into FOLDER or a temporary one unless it is there. The
//! request beside it runs on the checkpoint in RUNNING, which is written in the same way, or on the embedded model. It
//! fails when an evaluation beside the load takes longer than the longest one alone by more than an evaluation's time.

#![expect(clippy::print_stdout, reason = "a command of the workbench that prints")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_engine::{
    BatchPolicy, Engine, EngineHandle, JobEvent, PipelineExecutor, ResolvedJob, ResolvedModels,
};
use pentimento_pipeline::seeded;
use pentimento_types::{
    Clock as _, Inputs, JobId, ModelId, Recipe, RgbImage, SchedulerChoice, SchedulerKind, Size, SystemClock,
};

/// Pixels on a side, for the embedded model and the one that is loaded.
const SIDE: u32 = 256;
/// For a full-size model.
const FULL_SIDE: u32 = 512;
/// The most that the scheduler takes.
const STEPS: u32 = 50;
/// Enough of them for a full-size model, whose evaluations take long.
const FULL_SIZE_STEPS: u32 = 4;
/// Pictures before and after the load.
const ALONE: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut folders = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = folders.next();
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("pentimento-load-beside"));
    write_unless_there(&folder, 2)?;
    let (source, shape) = match folders.next() {
        None => (Source::Embedded("demo".to_owned()), (SIDE, STEPS)),
        Some(running) => {
            write_unless_there(&running, 1)?;
            (Source::Path(running), (FULL_SIDE, FULL_SIZE_STEPS))
        }
    };
    let run = |handle: &EngineHandle| run(handle, source.clone(), shape);
    let clock = Arc::new(SystemClock);
    let (handle, thread) = Engine::start(PipelineExecutor::cpu(), BatchPolicy::cpu(), clock)?;

    let mut alone = Vec::new();
    // The first picture loads the embedded model and touches its memory for the first time.
    run(&handle)?;
    for _ in 0..ALONE {
        alone.extend(run(&handle)?);
    }

    let begun = SystemClock.now();
    let second = JobId::new();
    let events = handle.generate(second, job("second", Source::Path(folder), (SIDE, 1))?)?;
    let watch = thread::spawn({
        let handle = handle.clone();
        move || {
            while handle.status().jobs_loading == 0 && SystemClock.now() < begun + Duration::from_secs(10) {
                thread::sleep(Duration::from_millis(1));
            }
            while handle.status().jobs_loading > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            let ended = SystemClock.now();
            handle.cancel(second);
            ended
        }
    });
    let mut beside = Vec::new();
    while !watch.is_finished() {
        beside.extend(run(&handle)?);
    }
    let ended = watch.join().map_err(|_| "the watch panicked")?;
    drop(events);
    // After the load the second request's own acts take their turns.
    beside.retain(|evaluation| evaluation.ended <= ended);
    if !handle.resident_models().iter().any(|model| model == "second") {
        return Err("the second checkpoint was not loaded".into());
    }
    drop(handle);
    thread.join()?;

    let usual = median(&alone);
    println!("load               {:>9.3} s", (ended - begun).as_secs_f64());
    report("evaluation alone", &alone);
    report("evaluation beside", &beside);
    // What else the machine does is in both.
    let delay = (worst(&beside) - worst(&alone)).max(0.0);
    println!(
        "delay by the load  {delay:>9.3} s at worst, {:.2} of an evaluation",
        delay / usual
    );
    if delay > usual {
        return Err("an evaluation was delayed by more than one evaluation's time".into());
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Evaluation {
    ended: Instant,
    seconds: f64,
}

fn write_unless_there(folder: &Path, seed: u64) -> Result<()> {
    if !folder.join("model_index.json").is_file() {
        println!("writing a checkpoint to {}", folder.display());
        seeded::write_checkpoint(seeded::Shape::Sd15, seed, folder)?;
    }
    Ok(())
}

/// Makes one picture, and tells when its evaluations ran.
fn run(handle: &EngineHandle, source: Source, shape: (u32, u32)) -> Result<Vec<Evaluation>> {
    let mut events = handle.generate(JobId::new(), job("running", source, shape)?)?;
    let mut evaluations = Vec::new();
    let mut before: Option<Instant> = None;
    while let Some(event) = events.blocking_next() {
        match event {
            JobEvent::Progress(_) => {
                let now = SystemClock.now();
                evaluations.extend(before.map(|begun| Evaluation {
                    ended: now,
                    seconds: (now - begun).as_secs_f64(),
                }));
                before = Some(now);
            }
            JobEvent::Failed(error) => return Err(error.into()),
            JobEvent::Started
            | JobEvent::Preview { .. }
            | JobEvent::Image { .. }
            | JobEvent::Finished
            | JobEvent::Cancelled => {}
        }
    }
    Ok(evaluations)
}

fn report(what: &str, evaluations: &[Evaluation]) {
    let count = evaluations.len();
    println!(
        "{what:<18} {:>9.3} s median, {:.3} s worst of {count}",
        median(evaluations),
        worst(evaluations)
    );
}

fn worst(evaluations: &[Evaluation]) -> f64 {
    let seconds = evaluations.iter().map(|evaluation| evaluation.seconds);
    seconds.fold(0.0, f64::max)
}

fn median(evaluations: &[Evaluation]) -> f64 {
    let mut seconds: Vec<f64> = evaluations.iter().map(|evaluation| evaluation.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

fn job(name: &str, source: Source, (side, steps): (u32, u32)) -> Result<ResolvedJob> {
    let size = Size {
        width: side,
        height: side,
    };
    let pixels = (0..side * side * 3)
        .map(|at| u8::try_from(at * 7 % 251).unwrap_or(0))
        .collect();
    let recipe = Recipe {
        prompt: "a photograph of a cup of coffee on a wooden table".to_owned(),
        steps,
        seed: 1,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            ..SchedulerChoice::default()
        },
        ..Recipe::of_model(ModelId::new(name))
    };
    let entry = ModelEntry::new(name, ModelKind::Checkpoint, source);
    Ok(ResolvedJob {
        recipe: Arc::new(recipe),
        models: ResolvedModels::checkpoint(Arc::new(entry)),
        images: Inputs::new(RgbImage::new(size, pixels).ok_or("the length fits the size")?),
    })
}
