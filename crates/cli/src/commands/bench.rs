//! `pentimento bench`: seconds per part of one picture, and the most memory that the process took.
//!
//! It runs the three acts of the pipeline on this thread, the same code as the server, without the engine around it, on each of the
//! devices in turn.

mod timings;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use pentimento_catalog::{Catalog, ModelEntry, ModelKind, Source};
use pentimento_engine::DeviceReport;
use pentimento_pipeline::{Device, ResolvedModels, StableDiffusion, seeded};
use pentimento_types::{
    Clock as _, ModelId, Recipe, RgbImage, SchedulerChoice, SchedulerKind, Size, SystemClock,
};
use serde_json::json;

use crate::args::{BenchArgs, BenchModel};
use crate::config::{Config, ConfigError};
use crate::machine::{Machine, gibibytes, peak_memory};
use crate::{device, output};

use timings::{RunSeconds, Summary};

/// Weights and picture are the same in every run.
const SEED: u64 = 1;

/// Everything that was measured.
#[derive(Debug)]
struct Report {
    /// Until the weights are ready.
    load: f64,
    runs: Vec<RunSeconds>,
    /// With the memory as it is after the runs.
    device: DeviceReport,
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs, config: &Config) -> anyhow::Result<()> {
    let side = args.size.unwrap_or(match (&args.folder, args.model) {
        (None, BenchModel::Demo) => 128,
        (Some(_), _) | (None, BenchModel::Sd15) => 512,
    });
    // One after the other, so that they do not wait for the same processor.
    for device in device::open(config)?.devices {
        let report = measure(args, side, &device)?;
        if args.json {
            output::line(serde_json::to_string_pretty(&as_json(args, side, &report))?);
        } else {
            print(args, side, &report);
        }
    }
    Ok(())
}

fn measure(args: &BenchArgs, side: u32, device: &Device) -> anyhow::Result<Report> {
    let picture = gradient(side)?;
    let request = recipe(args);

    let start = SystemClock.now();
    let model = match &args.folder {
        Some(folder) => load_folder(folder, device)?,
        None => load(args.model, device)?,
    };
    let load = seconds_since(start);

    let runs = (0..args.repeat)
        .map(|_| measure_run(&model, &request, &picture))
        .collect::<anyhow::Result<_>>()?;
    let device = DeviceReport::of(device);
    Ok(Report { load, runs, device })
}

fn measure_run(model: &StableDiffusion, request: &Recipe, picture: &RgbImage) -> anyhow::Result<RunSeconds> {
    let mut run = RunSeconds::default();

    let text_encode = || -> anyhow::Result<f64> {
        let start = SystemClock.now();
        model.encode_prompts(request, &[])?;
        Ok(seconds_since(start))
    };
    run.text_encode = text_encode()?;

    // `prepare` encodes the text too, which is taken off again: a second VAE pass would cost much more. The UNet's keys and
    // values of the text, a hundredth of it, stay in.
    // What is taken off is a second encoding, because the first one of a process takes longer.
    let again = text_encode()?;
    let start = SystemClock.now();
    let mut states = model.prepare(request, picture)?;
    run.vae_encode = (seconds_since(start) - again).max(0.0);

    let mut rows: Vec<_> = states.iter_mut().collect();
    while rows.iter().all(|row| row.evaluations_left() > 0) {
        let start = SystemClock.now();
        model.denoise(&mut rows)?;
        run.evaluations.push(seconds_since(start));
    }

    for state in states {
        let start = SystemClock.now();
        model.finish(state)?;
        run.vae_decodes.push(seconds_since(start));
    }
    Ok(run)
}

fn load(model: BenchModel, device: &Device) -> anyhow::Result<StableDiffusion> {
    match model {
        BenchModel::Demo => {
            let entry = Catalog::embedded_only().resolve(&ModelId::new("demo"), ModelKind::Checkpoint)?;
            Ok(StableDiffusion::load(&ResolvedModels::checkpoint(entry), device)?)
        }
        BenchModel::Sd15 => Ok(seeded::stable_diffusion(seeded::Shape::Sd15, SEED, device)?),
    }
}

/// A folder needs no catalogue here: nobody names it but whoever started the command.
fn load_folder(folder: &Path, device: &Device) -> anyhow::Result<StableDiffusion> {
    if !folder.is_file() && !folder.join("model_index.json").is_file() {
        return Err(ConfigError::Arguments {
            problem: format!(
                "{} is no diffusers folder: there is no model_index.json in it",
                folder.display()
            ),
        }
        .into());
    }
    let entry = ModelEntry::new(
        &folder.display().to_string(),
        ModelKind::Checkpoint,
        Source::Path(folder.to_owned()),
    );
    let models = ResolvedModels::checkpoint(Arc::new(entry));
    Ok(StableDiffusion::load(&models, device)?)
}

fn recipe(args: &BenchArgs) -> Recipe {
    Recipe {
        steps: args.steps,
        guidance_scale: args.guidance,
        token_merging: args.merge_tokens,
        scheduler: SchedulerChoice {
            kind: Some(args.scheduler),
            ..SchedulerChoice::default()
        },
        ..plain_recipe(args.rows)
    }
}

/// Pictures of four evaluations each.
pub(crate) fn plain_recipe(image_count: u32) -> Recipe {
    Recipe {
        model: ModelId::new("bench"),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: "a photograph of a cup of coffee on a wooden table".to_owned(),
        negative_prompt: None,
        image_count,
        steps: 4,
        // All steps run.
        strength: 1.0,
        guidance_scale: 1.0,
        seed: SEED,
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
    }
}

/// Colours that change over both axes; what is in the picture does not change the time.
pub(crate) fn gradient(side: u32) -> anyhow::Result<RgbImage> {
    let byte = |value: u32| u8::try_from(value * 255 / side).unwrap_or(u8::MAX);
    let pixel = |at: u32| [byte(at % side), byte(at / side), 128];
    let pixels = (0..side * side).flat_map(pixel).collect();
    RgbImage::new(
        Size {
            width: side,
            height: side,
        },
        pixels,
    )
    .context("a square has side * side pixels")
}

fn seconds_since(start: Instant) -> f64 {
    (SystemClock.now() - start).as_secs_f64()
}

fn name_of(args: &BenchArgs) -> String {
    match (&args.folder, args.model) {
        (Some(folder), _) => folder.display().to_string(),
        (None, BenchModel::Demo) => "demo".to_owned(),
        (None, BenchModel::Sd15) => "sd15".to_owned(),
    }
}

fn print(args: &BenchArgs, side: u32, report: &Report) {
    let machine = Machine::look();
    let place = match &report.device.gpu {
        Some(_) => format!("{} in {}", report.device.name, report.device.precision),
        None => format!(
            "{} with {} threads, in {}",
            machine.isa, machine.cores, report.device.precision
        ),
    };
    output::line(format_args!(
        "{} at {side}x{side}, {} steps of {} with guidance {}, on {place}",
        name_of(args),
        args.steps,
        args.scheduler,
        args.guidance,
    ));
    let show = |what: &str, seconds: f64| output::line(format_args!("{what:<18} {seconds:>9.3} s"));
    show("load", report.load);
    match report.runs.as_slice() {
        // The first evaluation often differs from the others, which a median would hide.
        [run] if args.rows == 1 => print_run(run),
        runs => print_summary(args, runs),
    }
    let peak = peak_memory().map_or_else(|| "unknown".to_owned(), gibibytes);
    output::line(format_args!("{:<18} {peak:>11}", "peak memory"));
    if let Some(gpu) = &report.device.gpu {
        let used = gibibytes(gpu.used_bytes);
        output::line(format_args!("{:<18} {used:>11}", "GPU memory"));
    }
}

fn print_run(run: &RunSeconds) {
    let show = |what: &str, seconds: f64| output::line(format_args!("{what:<18} {seconds:>9.3} s"));
    show("text encode", run.text_encode);
    show("VAE encode", run.vae_encode);
    for (index, seconds) in run.evaluations.iter().enumerate() {
        show(&format!("evaluation {}", index + 1), *seconds);
    }
    show("VAE decode", run.vae_decodes.iter().sum());
    show("picture", run.whole());
}

fn print_summary(args: &BenchArgs, runs: &[RunSeconds]) {
    let (median, fastest) = (
        Summary::median(runs, args.rows),
        Summary::fastest(runs, args.rows),
    );
    let show = |what: &str, part: fn(&Summary) -> f64| {
        let (median, fastest) = (part(&median), part(&fastest));
        output::line(format_args!("{what:<18} {median:>9.3} s {fastest:>11.3} s"));
    };
    output::line(format_args!(
        "{:<18} {:>11} {:>13}   of {} runs of {} rows",
        "", "median", "fastest", args.repeat, args.rows
    ));
    show("text encode", |of| of.text_encode);
    show("VAE encode", |of| of.vae_encode);
    show("evaluation", |of| of.evaluation);
    show("evaluation per row", |of| of.evaluation_per_row);
    show("VAE decode", |of| of.vae_decode);
    show("picture", |of| of.picture);
}

fn as_json(args: &BenchArgs, side: u32, report: &Report) -> serde_json::Value {
    let machine = Machine::look();
    json!({
        "model": name_of(args),
        "size": side,
        "steps": args.steps,
        "scheduler": args.scheduler.class_name(),
        "guidance": args.guidance,
        "rows": args.rows,
        "repeat": args.repeat,
        "load_seconds": report.load,
        "seconds": Summary::median(&report.runs, args.rows),
        "fastest_seconds": Summary::fastest(&report.runs, args.rows),
        "runs": report.runs,
        "peak_memory_bytes": peak_memory(),
        "device": report.device.name,
        "precision": report.device.precision.to_string(),
        "gpu_memory_bytes": report.device.gpu.as_ref().map(|gpu| gpu.used_bytes),
        "isa": machine.isa,
        "threads": machine.cores,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn bench(more: &[&str]) -> BenchArgs {
        let args = Args::try_parse_from(["pentimento", "bench"].iter().chain(more)).unwrap();
        let Command::Bench(args) = args.command else {
            panic!("another command")
        };
        args
    }

    #[test]
    fn the_picture_is_square_and_not_flat() {
        let picture = gradient(16).unwrap();
        assert_eq!(
            picture.size(),
            Size {
                width: 16,
                height: 16
            }
        );
        assert_ne!(picture.pixels()[..3], picture.pixels()[45..48]);
    }

    #[test]
    fn every_row_of_every_run_is_measured() {
        let args = bench(&[
            "--scheduler",
            "DDIM",
            "--guidance",
            "3",
            "--rows",
            "2",
            "--repeat",
            "2",
            "--steps",
            "3",
        ]);
        let report = measure(&args, 64, &Device::Cpu).unwrap();
        let json = as_json(&args, 64, &report);
        assert_eq!(json["scheduler"], "DDIMScheduler");
        assert_eq!(json["runs"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["runs"][1]["evaluations"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["runs"][1]["vae_decodes"].as_array().map(Vec::len), Some(2));
        let (forward, row) = (
            &json["seconds"]["evaluation"],
            &json["seconds"]["evaluation_per_row"],
        );
        assert_eq!(forward.as_f64().unwrap(), row.as_f64().unwrap() * 2.0);
    }

    #[test]
    fn a_folder_without_a_model_is_a_wrong_argument() {
        let empty = tempfile::tempdir().unwrap();
        for folder in [empty.path(), &empty.path().join("none")] {
            let error = load_folder(folder, &Device::Cpu).unwrap_err();
            assert!(error.is::<ConfigError>());
            assert!(error.to_string().contains("model_index.json"), "{error}");
        }
    }
}
