//! DDIMInverse must give the picture back: the check that `docs/adr/0003` states for it.

use candle_core::Tensor;
use pentimento_types::{SchedulerChoice, SchedulerKind};

use crate::{NoiseSource, Run, SchedulerConfig, build};

/// A stand-in for the UNet whose noise changes with position and timestep, as smoothly as a trained model's.
fn model(sample: &Tensor, timestep: f64) -> Tensor {
    let mixed = (sample + sample.roll(1, 3).unwrap()).unwrap();
    let share = 0.5 * (timestep / 1000.0).sqrt();
    mixed.affine(share, 0.02 * (timestep / 300.0).sin()).unwrap()
}

/// How well the picture comes back, in dB of the picture's own range.
fn psnr(steps: u32, strength: f64) -> f64 {
    let config = SchedulerConfig::from_json(
        br#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": false}"#,
    )
    .unwrap();
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::DDIMInverse),
        ..SchedulerChoice::default()
    };
    let clean = NoiseSource::new(11).normal(&[1, 4, 8, 8]).unwrap();
    let plan = build(&choice, &config, Run { steps, strength }).unwrap();
    let mut scheduler = plan.begin(&clean, NoiseSource::new(5)).unwrap();
    while let Some(evaluation) = scheduler.next_evaluation().unwrap() {
        let prediction = model(&evaluation.sample, evaluation.timestep);
        scheduler.advance(&prediction).unwrap();
    }
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let picture = values(&clean);
    let squares = values(scheduler.latents())
        .into_iter()
        .zip(&picture)
        .map(|(a, b)| f64::from(a - b).powi(2));
    let count = u32::try_from(picture.len()).unwrap();
    let mean = squares.sum::<f64>() / f64::from(count);
    let range =
        picture.iter().fold(f32::MIN, |m, x| m.max(*x)) - picture.iter().fold(f32::MAX, |m, x| m.min(*x));
    10.0 * (f64::from(range).powi(2) / mean).log10()
}

#[test]
fn the_picture_comes_back_better_with_more_steps() {
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
