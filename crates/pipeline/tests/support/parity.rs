//! Every scheduler's images beside diffusers': plain and Karras, three strengths, guidance off and on.
//!
//! `tests/golden/generate/parity.py` makes the images; the example `scheduler_parity` prints the table.

use candle_core::{DType, Tensor};
use pentimento_pipeline::StableDiffusion;
use pentimento_testkit::{Difference, Golden, compare};
use pentimento_types::{NoiseSpacing, Recipe, RgbImage, SchedulerChoice, SchedulerKind};

use crate::support::{image_of, request_of};

/// The four that diffusers' img2img pipeline cannot run; docs/adr/0003 defines them.
pub(crate) const DEFINED_BY_US: [SchedulerKind; 4] = [
    SchedulerKind::DDIMInverse,
    SchedulerKind::IPNDM,
    SchedulerKind::KarrasVe,
    SchedulerKind::ScoreSdeVe,
];

/// One run and how far it is from diffusers', in levels of 0 to 255.
pub(crate) struct Run {
    pub(crate) kind: SchedulerKind,
    /// `plain` or `karras`.
    pub(crate) spacing: &'static str,
    pub(crate) strength: f64,
    pub(crate) guidance: f64,
    pub(crate) difference: Difference,
}

/// Runs everything that the golden files hold, scheduler by scheduler.
pub(crate) fn run_all(model: &StableDiffusion) -> Vec<Run> {
    SchedulerKind::ALL
        .iter()
        .filter(|kind| !DEFINED_BY_US.contains(kind))
        .flat_map(|kind| run(model, *kind))
        .collect()
}

fn run(model: &StableDiffusion, kind: SchedulerKind) -> Vec<Run> {
    let name = kind.class_name().trim_end_matches("Scheduler");
    let golden = Golden::open(&format!("parity/{name}.safetensors"));
    let init = image_of(golden.tensor("input.u8"));
    let mut runs = Vec::new();
    for (spacing, noise_spacing) in [
        ("plain", NoiseSpacing::Checkpoint),
        ("karras", NoiseSpacing::Karras),
    ] {
        for strength in [0.4, 0.7, 1.0] {
            for guidance in [1.0, 7.5] {
                let Some(expected) = golden.get(&format!("{spacing}/{strength:?}/{guidance:?}")) else {
                    continue;
                };
                let request = Recipe {
                    strength,
                    guidance_scale: guidance,
                    scheduler: SchedulerChoice {
                        kind: Some(kind),
                        spacing: noise_spacing,
                        ..SchedulerChoice::default()
                    },
                    ..request_of(golden.about())
                };
                let found = generate(model, &request, &init);
                let difference = compare(&levels(&found), &expected.to_dtype(DType::F64).unwrap()).unwrap();
                runs.push(Run {
                    kind,
                    spacing,
                    strength,
                    guidance,
                    difference,
                });
            }
        }
    }
    runs
}

/// One image, alone.
pub(crate) fn generate(model: &StableDiffusion, request: &Recipe, init: &RgbImage) -> RgbImage {
    let mut state = model.prepare(request, init).unwrap().remove(0);
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

fn levels(image: &RgbImage) -> Tensor {
    let size = image.size();
    let shape = (size.height as usize, size.width as usize, 3);
    Tensor::from_slice(image.pixels(), shape, &candle_core::Device::Cpu)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
}
