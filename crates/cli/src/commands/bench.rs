//! `pentimento bench`: seconds per part of one picture, and the most memory that the process took.
//!
//! It runs the three acts of the pipeline on this thread, the same code as the server, without the engine around it.

use std::time::Instant;

use anyhow::Context as _;
use pentimento_catalog::{Catalog, ModelKind};
use pentimento_pipeline::{StableDiffusion, seeded};
use pentimento_types::{
    Clock as _, GenerationRequest, ImageFormat, ImageSource, ModelId, RgbPicture, SchedulerChoice,
    SchedulerKind, Size, SystemClock, Task,
};
use serde_json::json;

use crate::args::{BenchArgs, BenchModel};
use crate::machine::{Machine, gibibytes, peak_memory};
use crate::output;

/// Weights and picture are the same in every run.
const SEED: u64 = 1;

/// Seconds of each part.
#[derive(Debug, Default)]
struct Timings {
    load: f64,
    text_encode: f64,
    /// Schedule and start noise are in here too; they take milliseconds.
    vae_encode: f64,
    evaluations: Vec<f64>,
    vae_decode: f64,
}

impl Timings {
    /// From the request to the picture, the model being there.
    fn picture(&self) -> f64 {
        self.text_encode + self.vae_encode + self.evaluations.iter().sum::<f64>() + self.vae_decode
    }
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let side = args.size.unwrap_or(match args.model {
        BenchModel::Demo => 128,
        BenchModel::Sd15 => 512,
    });
    let timings = measure(args, side)?;
    if args.json {
        output::line(serde_json::to_string_pretty(&as_json(args, side, &timings))?);
    } else {
        print(args, side, &timings);
    }
    Ok(())
}

fn measure(args: &BenchArgs, side: u32) -> anyhow::Result<Timings> {
    let mut timings = Timings::default();
    let picture = gradient(side)?;
    let request = request(args.steps);

    let start = SystemClock.now();
    let model = load(args.model)?;
    timings.load = seconds_since(start);

    let start = SystemClock.now();
    model.encode_prompts(&request)?;
    timings.text_encode = seconds_since(start);

    // `prepare` encodes the text once more, which is taken off again: a second VAE pass would cost much more.
    let start = SystemClock.now();
    let state = model.prepare(&request, &picture)?.pop();
    timings.vae_encode = (seconds_since(start) - timings.text_encode).max(0.0);

    let mut state = state.context("a request for one picture has one state")?;
    while state.evaluations_left() > 0 {
        let start = SystemClock.now();
        model.denoise(&mut [&mut state])?;
        timings.evaluations.push(seconds_since(start));
    }

    let start = SystemClock.now();
    model.finish(state)?;
    timings.vae_decode = seconds_since(start);
    Ok(timings)
}

fn load(model: BenchModel) -> anyhow::Result<StableDiffusion> {
    match model {
        BenchModel::Demo => {
            let entry = Catalog::embedded_only().resolve(&ModelId::new("demo"), ModelKind::Checkpoint)?;
            Ok(StableDiffusion::load_on_cpu(&entry)?)
        }
        BenchModel::Sd15 => Ok(StableDiffusion::seeded_on_cpu(seeded::Shape::Sd15, SEED)?),
    }
}

fn request(steps: u32) -> GenerationRequest {
    GenerationRequest {
        task: Task::Img2Img,
        model: ModelId::new("bench"),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        init_image: ImageSource::Inline(bytes::Bytes::new()),
        prompt: "a photograph of a cup of coffee on a wooden table".to_owned(),
        negative_prompt: String::new(),
        image_count: 1,
        steps,
        // All steps run.
        strength: 1.0,
        guidance_scale: 1.0,
        seed: SEED,
        clip_skip: 1,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            ..SchedulerChoice::default()
        },
        output_format: ImageFormat::Png,
        file_stem: "bench".to_owned(),
    }
}

/// Colours that change over both axes; what is in the picture does not change the time.
fn gradient(side: u32) -> anyhow::Result<RgbPicture> {
    let byte = |value: u32| u8::try_from(value * 255 / side).unwrap_or(u8::MAX);
    let pixel = |at: u32| [byte(at % side), byte(at / side), 128];
    let pixels = (0..side * side).flat_map(pixel).collect();
    RgbPicture::new(
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

fn name_of(model: BenchModel) -> &'static str {
    match model {
        BenchModel::Demo => "demo",
        BenchModel::Sd15 => "sd15",
    }
}

fn print(args: &BenchArgs, side: u32, timings: &Timings) {
    let machine = Machine::look();
    let show = |what: &str, seconds: f64| output::line(format_args!("{what:<14} {seconds:>9.3} s"));
    output::line(format_args!(
        "{} at {side}x{side}, {} steps, on {} with {} threads",
        name_of(args.model),
        args.steps,
        machine.isa,
        machine.cores
    ));
    show("load", timings.load);
    show("text encode", timings.text_encode);
    show("VAE encode", timings.vae_encode);
    for (index, seconds) in timings.evaluations.iter().enumerate() {
        show(&format!("evaluation {}", index + 1), *seconds);
    }
    show("VAE decode", timings.vae_decode);
    show("picture", timings.picture());
    let peak = peak_memory().map_or_else(|| "unknown".to_owned(), gibibytes);
    output::line(format_args!("{:<14} {peak:>11}", "peak memory"));
}

fn as_json(args: &BenchArgs, side: u32, timings: &Timings) -> serde_json::Value {
    let machine = Machine::look();
    json!({
        "model": name_of(args.model),
        "size": side,
        "steps": args.steps,
        "seconds": {
            "load": timings.load,
            "text_encode": timings.text_encode,
            "vae_encode": timings.vae_encode,
            "evaluations": timings.evaluations,
            "vae_decode": timings.vae_decode,
            "picture": timings.picture(),
        },
        "peak_memory_bytes": peak_memory(),
        "isa": machine.isa,
        "threads": machine.cores,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_parts_add_up_to_the_picture() {
        let timings = Timings {
            load: 9.0,
            text_encode: 1.0,
            vae_encode: 2.0,
            evaluations: vec![3.0, 4.0],
            vae_decode: 5.0,
        };
        assert!((timings.picture() - 15.0).abs() < 1e-9);
    }
}
