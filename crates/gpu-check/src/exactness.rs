//! Whether the device's pictures are those of the processor: one evaluation at real size, and whole pictures of the demo model.

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_pipeline::{Device, GpuDevice, Precision, ResolvedModels, StableDiffusion, seeded};
use pentimento_types::{Recipe, RgbImage};
use serde_json::json;

use crate::Answer;
use crate::place::{Place, model, model_on_cpu, picture, recipe};

/// One evaluation in f32 against the processor, relative.
const F32_EVALUATION: f64 = 1e-4;
/// And in f16.
const F16_EVALUATION: f64 = 3e-3;
/// A picture of bytes: the furthest and the mean, in f32 and in f16.
const F32_PICTURE: (f64, f64) = (2.0, 0.1);
const F16_PICTURE: (f64, f64) = (255.0, 1.0);
/// Of the demo model.
const DEMO_SIDE: u32 = 64;

pub(crate) fn ask(place: &Place, (shape, size): (seeded::Shape, u32)) -> anyhow::Result<Answer> {
    let gpu = place.open()?;
    let (mut lines, mut found, mut good) = (Vec::new(), Vec::new(), true);
    let expected = evaluation(&model_on_cpu(shape)?, size)?;
    let entry = ModelEntry::new("demo", ModelKind::Checkpoint, Source::Embedded("demo".to_owned()));
    let demo = ResolvedModels::checkpoint(Arc::new(entry));
    // The emulator takes minutes for what a card does at once.
    let (steps, guidance) = if *place == Place::Emulated {
        (1, 1.0)
    } else {
        (4, 3.0)
    };
    let whole = |model: &StableDiffusion| whole(model, &recipe(1, steps, guidance));
    let wanted = whole(&StableDiffusion::load(&demo, &Device::Cpu)?)?;
    for (precision, evaluation_limit, picture_limit) in [
        (Precision::F32, F32_EVALUATION, F32_PICTURE),
        (Precision::F16, F16_EVALUATION, F16_PICTURE),
    ] {
        let relative = distance(&evaluation(&model(shape, &gpu, precision)?, size)?, &expected);
        let device = Device::Gpu(GpuDevice::new(gpu.clone(), precision));
        let (furthest, mean) = apart(&whole(&StableDiffusion::load(&demo, &device)?)?, &wanted);
        let fits = relative <= evaluation_limit && furthest <= picture_limit.0 && mean <= picture_limit.1;
        good &= fits;
        lines.push(format!(
            "{precision}: one evaluation {relative:.2e} relative (at most {evaluation_limit:.0e}), pictures {furthest} at most and \
             {mean:.3} in the mean of 255 ({} and {}){}",
            picture_limit.0,
            picture_limit.1,
            if fits { "" } else { ": TOO FAR" }
        ));
        found.push(json!({
            "precision": precision.to_string(),
            "evaluation_relative": relative,
            "picture_furthest": furthest,
            "picture_mean": mean,
            "good": fits,
        }));
    }
    Ok(Answer {
        lines,
        json: json!(found),
        good,
    })
}

/// The latents after one evaluation, without guidance, which would multiply the difference of two rows and their roundings with
/// it: the bounds are those of one pass of the network.
fn evaluation(model: &StableDiffusion, size: u32) -> anyhow::Result<Vec<f32>> {
    let mut states = model.prepare(&recipe(1, 4, 1.0), &picture(size)?)?;
    let mut first = states.remove(0);
    model.denoise(&mut [&mut first])?;
    Ok(first.latents().values().to_vec())
}

fn whole(model: &StableDiffusion, recipe: &Recipe) -> anyhow::Result<RgbImage> {
    let mut states = model.prepare(recipe, &picture(DEMO_SIDE)?)?;
    let mut first = states.remove(0);
    while first.evaluations_left() > 0 {
        model.denoise(&mut [&mut first])?;
    }
    Ok(model.finish(first)?)
}

/// The rms of the differences beside that of the numbers. NaN is as far as can be.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let square = |sum: f64, x: f64| sum + x * x;
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from(*a) - f64::from(*b));
    let size = expected.iter().map(|x| f64::from(*x)).fold(0.0, square);
    let apart = differences.fold(0.0, square) / size;
    if apart.is_finite() {
        apart.sqrt()
    } else {
        f64::INFINITY
    }
}

fn apart(found: &RgbImage, expected: &RgbImage) -> (f64, f64) {
    let differences: Vec<f64> = found
        .pixels()
        .iter()
        .zip(expected.pixels())
        .map(|(a, b)| f64::from(a.abs_diff(*b)))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "pixels of a picture")]
    let count = differences.len().max(1) as f64;
    let furthest = differences.iter().copied().fold(0.0, f64::max);
    (furthest, differences.iter().sum::<f64>() / count)
}
