//! DDIMInverse must give the image back: the check that `docs/adr/0003` states for it.

use pentimento_types::{SchedulerChoice, SchedulerKind};

use super::shifted_right;
use crate::{Latents, NoiseSource, Run, SchedulerConfig, build};

/// A stand-in for the UNet whose noise changes with position and timestep, as smoothly as a trained model's.
#[expect(clippy::cast_possible_truncation, reason = "the stand-in computes in f32")]
fn model(sample: &Latents, timestep: f64) -> Latents {
    let share = (0.5 * (timestep / 1000.0).sqrt()) as f32;
    let shift = (0.02 * (timestep / 300.0).sin()) as f32;
    let values = sample.values().iter().zip(shifted_right(sample));
    let mixed = values.map(|(x, left)| (x + left) * share + shift).collect();
    Latents::new(sample.shape(), mixed).unwrap()
}

/// How well the image comes back, in dB of its own range.
fn psnr(steps: u32, strength: f64) -> f64 {
    let config = SchedulerConfig::from_json(
        br#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": false}"#,
    )
    .unwrap();
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::DDIMInverse),
        ..SchedulerChoice::default()
    };
    let init_latents = NoiseSource::new(11).normal([4, 8, 8]);
    let run = Run {
        num_inference_steps: steps,
        strength,
    };
    let plan = build(&choice, &config, run).unwrap();
    let mut scheduler = plan.begin(&init_latents, NoiseSource::new(5)).unwrap();
    while let Some(evaluation) = scheduler.next_evaluation() {
        let prediction = model(&evaluation.sample, evaluation.timestep);
        scheduler.advance(&prediction).unwrap();
    }
    let image = init_latents.values();
    let latents = scheduler.latents().values();
    let squares = latents.iter().zip(image).map(|(a, b)| f64::from(a - b).powi(2));
    let count = u32::try_from(image.len()).unwrap();
    let mean = squares.sum::<f64>() / f64::from(count);
    let range = image.iter().fold(f32::MIN, |m, x| m.max(*x)) - image.iter().fold(f32::MAX, |m, x| m.min(*x));
    10.0 * (f64::from(range).powi(2) / mean).log10()
}

#[test]
fn the_image_comes_back_better_with_more_steps() {
    let found: Vec<f64> = [10, 20, 50, 100, 200]
        .into_iter()
        .map(|steps| psnr(steps, 1.0))
        .collect();
    println!(
        "DDIMInverse, strength 1: {found:.1?} dB; strength 0.5, 50 steps: {:.1} dB",
        psnr(50, 0.5)
    );
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{found:?}");
    assert!(found[1] > 30.0 && found[2] > 38.0 && found[3] > 44.0, "{found:?}");
}
