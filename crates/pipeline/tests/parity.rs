//! All schedulers: 15 equal to diffusers' images, four by our own definition, and all of them in one batch.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/parity.rs"]
mod parity_runs;
mod support;

use std::sync::Arc;

use parity_runs::{DEFINED_BY_US, generate, run_all};
use pentimento_catalog::Catalog;
use pentimento_pipeline::{DenoiseState, Device, ResolvedModels, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance};
use pentimento_types::{NoiseSpacing, Recipe, RgbImage, SchedulerChoice, SchedulerKind, Size};
use support::{image_of, request, tiny};

#[test]
fn fifteen_schedulers_give_the_pictures_of_diffusers() {
    let runs = run_all(&tiny("tiny"));
    assert_eq!(runs.len(), 144, "runs in tests/golden/parity");
    for run in runs {
        let (found, allowed) = (run.difference, Tolerance::PICTURE);
        assert!(
            found.max <= allowed.max && found.mean <= allowed.mean,
            "{} {} strength {} guidance {}: largest {}, mean {}",
            run.kind,
            run.spacing,
            run.strength,
            run.guidance,
            found.max,
            found.mean
        );
    }
}

#[test]
fn the_other_four_run_at_every_strength_and_are_not_another_scheduler() {
    let model = tiny("tiny");
    let init = image_of(Golden::open("parity/DDIM.safetensors").tensor("input.u8"));
    let of = |kind: SchedulerKind, strength: f64, guidance_scale: f64| {
        let request = Recipe {
            steps: 6,
            strength,
            guidance_scale,
            ..request(kind)
        };
        generate(&model, &request, &init)
    };
    for strength in [0.4, 0.7, 1.0] {
        for guidance in [1.0, 7.5] {
            for kind in DEFINED_BY_US {
                let found = of(kind, strength, guidance);
                for other in SchedulerKind::ALL.iter().filter(|other| **other != kind) {
                    // Two schedulers may agree where one step is left, but never at full strength.
                    assert!(
                        strength < 1.0 || found != of(*other, strength, guidance),
                        "{kind} is {other}"
                    );
                }
            }
        }
    }
}

/// A job for each scheduler, with different steps, strengths and guidance, in one batch.
#[test]
fn all_schedulers_share_a_batch_and_nobody_notices() {
    let model = tiny("tiny");
    let init = image_of(Golden::open("parity/DDIM.safetensors").tensor("input.u8"));
    let requests: Vec<_> = SchedulerKind::ALL
        .iter()
        .zip(0_u32..)
        .map(|(kind, k)| Recipe {
            steps: 2 + k % 5,
            strength: [0.5, 0.7, 1.0][k as usize % 3],
            guidance_scale: [1.0, 7.5, 3.0, 0.0][k as usize % 4],
            seed: u64::from(k),
            scheduler: SchedulerChoice {
                kind: Some(*kind),
                spacing: [NoiseSpacing::Checkpoint, NoiseSpacing::Karras][k as usize % 2],
                ..SchedulerChoice::default()
            },
            ..request(*kind)
        })
        .collect();
    let mut states: Vec<DenoiseState> = requests
        .iter()
        .flat_map(|request| model.prepare(request, &init).unwrap())
        .collect();
    assert_eq!(states.len(), SchedulerKind::ALL.len());
    while states.iter().any(|state| state.evaluations_left() > 0) {
        let mut batch: Vec<_> = states
            .iter_mut()
            .filter(|state| state.evaluations_left() > 0)
            .collect();
        model.denoise(&mut batch).unwrap();
    }
    for (state, request) in states.into_iter().zip(&requests) {
        let together = model.finish(state).unwrap();
        assert!(
            together == generate(&model, request, &init),
            "{:?}",
            request.scheduler.kind
        );
    }
}

/// `DDIMInverse` at full strength without a prompt: up to the start level and down again. What is lost is the VAE's
/// share and the inversion's own error, so the image is compared with the VAE's round trip too.
#[test]
fn ddim_inverse_gives_the_image_back() {
    let catalog = Catalog::embedded_only();
    let models = ResolvedModels::checkpoint(Arc::clone(&catalog.entries()[0]));
    let model = StableDiffusion::load(&models, &Device::Cpu).unwrap();
    let init = scene();
    let request = Recipe {
        prompt: String::new(),
        strength: 1.0,
        steps: 50,
        ..request(SchedulerKind::DDIMInverse)
    };
    let back = generate(&model, &request, &init);
    let found = psnr(&back, &init);
    assert!(found >= 23.0, "{found:.1} dB");
}

/// A smooth image of two colours and a disc, the kind that the demo model was trained on.
fn scene() -> RgbImage {
    let size = Size {
        width: 64,
        height: 64,
    };
    let pixel = |x: i32, y: i32| {
        let in_disc = (x - 32).pow(2) + (y - 30).pow(2) < 200;
        let ground = y > 40;
        if in_disc {
            [220, 60, 50]
        } else if ground {
            [70, 140, 60]
        } else {
            [110, 170, 230]
        }
    };
    let pixels = (0..64)
        .flat_map(|y| (0..64).flat_map(move |x| pixel(x, y)))
        .collect();
    RgbImage::new(size, pixels).unwrap()
}

/// Peak signal to noise ratio in decibels, over all channels.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a
        .pixels()
        .iter()
        .zip(b.pixels())
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand pixels")]
    let mean = squares.sum::<f64>() / a.pixels().len() as f64;
    10.0 * (255.0_f64.powi(2) / mean).log10()
}
