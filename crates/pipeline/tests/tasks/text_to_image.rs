//! Text to image against diffusers: every latent and the picture.
//!
//! The files are made by `tests/golden/generate/text_to_image.py` on the tiny models of `tests/golden/models`.

use std::sync::Arc;

use pentimento_pipeline::{DenoiseState, PipelineError, PrepareInput, PrepareStep, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close, golden_runs};
use pentimento_types::{Inputs, NoiseSpacing, Recipe, RgbImage, SchedulerKind, Size};

use crate::models::model_of;
use crate::support::{request, request_of, tiny};
use crate::tensors::tensor_of;

/// The request and the size of a golden run.
fn asked(golden: &Golden) -> (Recipe, Size) {
    let about = golden.about();
    let side = |key: &str| u32::try_from(about[key].as_u64().unwrap()).unwrap();
    let mut request = request_of(about);
    if about["karras"].as_bool().unwrap() {
        request.scheduler.spacing = NoiseSpacing::Karras;
    }
    // It has no meaning, whatever a caller says.
    request.strength = 0.3;
    let size = Size {
        width: side("width"),
        height: side("height"),
    };
    (request, size)
}

fn check(case: &str) {
    let golden = Golden::open(&format!("text_to_image/{case}.safetensors"));
    let (request, size) = asked(&golden);
    let model = model_of(&golden);
    let mut state = model.prepare_from_noise(&request, size).unwrap().remove(0);
    let close = |name: &str, found: &[f32]| {
        let expected: Vec<f32> = golden.values(name);
        assert_values_close(
            &format!("{case}: {name}"),
            found,
            &expected,
            Tolerance::TRAJECTORY,
        );
    };
    close("start", state.latents().values());
    let mut step = 0;
    // diffusers calls back after a step, which is two evaluations of some schedulers.
    let evaluations = state.evaluations_left();
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
        close(&format!("step.{step}"), state.latents().values());
        step += 1;
    }
    assert_eq!(step, evaluations);
    assert!(
        golden.get(&format!("step.{step}")).is_none(),
        "{case}: diffusers runs more than {step} evaluations"
    );
    let found = tensor_of(&model.finish(state).unwrap());
    assert_close(
        &format!("{case}: image"),
        &found,
        golden.tensor("output.u8"),
        Tolerance::PICTURE,
    );
}

golden_runs! {
    "text_to_image", check;
    sd1_ddpm => "sd1-ddpm",
    sd1_ddim => "sd1-ddim",
    sd1_ddim_unguided => "sd1-ddim-unguided",
    sd1_pndm => "sd1-pndm",
    sd1_lms => "sd1-lms",
    sd1_euler => "sd1-euler",
    sd1_euler_skip => "sd1-euler-skip",
    sd1_euler_karras => "sd1-euler-karras",
    sd1_euler_ancestral => "sd1-euler-ancestral",
    sd1_heun => "sd1-heun",
    sd1_kdpm2 => "sd1-kdpm2",
    sd1_kdpm2_ancestral => "sd1-kdpm2-ancestral",
    sd1_dpm_multistep => "sd1-dpm-multistep",
    sd1_dpm_multistep_karras => "sd1-dpm-multistep-karras",
    sd1_dpm_singlestep => "sd1-dpm-singlestep",
    sd1_unipc => "sd1-unipc",
    sd1_deis => "sd1-deis",
    sd1_lcm => "sd1-lcm",
    sd1_lcm_distilled => "sd1-lcm-distilled",
    sd1_tcd => "sd1-tcd",
    sd1_nine_euler => "sd1-nine-euler",
    sd1_nine_ddim => "sd1-nine-ddim",
    sd2_euler => "sd2-euler",
    sd2_ddim_skip => "sd2-ddim-skip",
    sdxl_euler => "sdxl-euler",
    sdxl_euler_no_negative => "sdxl-euler-no-negative",
    sdxl_ddim_unguided => "sdxl-ddim-unguided",
    sdxl_dpm_karras_skip => "sdxl-dpm-karras-skip",
    sdxl_unipc => "sdxl-unipc",
    sdxl_ancestral => "sdxl-ancestral",
    sdxl_lcm_distilled => "sdxl-lcm-distilled",
    sdxl_nine => "sdxl-nine",
}

const SIZE: Size = Size {
    width: 48,
    height: 32,
};

fn finished(model: &StableDiffusion, mut state: DenoiseState) -> RgbImage {
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

/// Image k of a request is the image of seed + k, and text to image shares its forwards with image to image.
#[test]
fn rows_do_not_meet() {
    let model = tiny("tiny");
    let init = RgbImage::new(SIZE, vec![120; 48 * 32 * 3]).unwrap();
    let of = |kind: SchedulerKind, seed: u64, guidance_scale: f64| Recipe {
        seed,
        guidance_scale,
        steps: 4,
        strength: 1.0,
        ..request(kind)
    };
    let all: Vec<_> = SchedulerKind::ALL
        .iter()
        .filter(|kind| **kind != SchedulerKind::DDIMInverse)
        .zip([1.0, 7.5].into_iter().cycle())
        .map(|(kind, guidance)| of(*kind, 5, guidance))
        .collect();
    let alone: Vec<_> = all
        .iter()
        .map(|recipe| finished(&model, model.prepare_from_noise(recipe, SIZE).unwrap().remove(0)))
        .collect();
    let of_image = of(SchedulerKind::DDIM, 9, 3.0);
    let changed = finished(&model, model.prepare(&of_image, &init).unwrap().remove(0));
    let mut states: Vec<_> = all
        .iter()
        .map(|recipe| model.prepare_from_noise(recipe, SIZE).unwrap().remove(0))
        .chain(model.prepare(&of_image, &init).unwrap())
        .collect();
    while states.iter().any(|state| state.evaluations_left() > 0) {
        let left = states.iter_mut().filter(|state| state.evaluations_left() > 0);
        model.denoise(&mut left.collect::<Vec<_>>()).unwrap();
    }
    let together: Vec<_> = states
        .into_iter()
        .map(|state| model.finish(state).unwrap())
        .collect();
    assert!(together[..alone.len()] == alone, "a row depends on its company");
    assert!(*together.last().unwrap() == changed);
    let two = Recipe {
        image_count: 2,
        ..all[0].clone()
    };
    let second = model.prepare_from_noise(&two, SIZE).unwrap().remove(1);
    let other = of(all[0].scheduler.kind.unwrap(), 6, all[0].guidance_scale);
    let expected = model.prepare_from_noise(&other, SIZE).unwrap().remove(0);
    assert_eq!(second.latents(), expected.latents());
}

/// The image is nowhere encoded, so that a preparation has no slice for it.
#[test]
fn nothing_is_encoded() {
    let model = tiny("tiny");
    let slices = |images: Inputs<RgbImage>| {
        let mut preparation = model
            .begin(PrepareInput {
                recipe: Arc::new(request(SchedulerKind::DDIM)),
                images,
                embeddings: Vec::new(),
                max_prompt_tokens: usize::MAX,
            })
            .unwrap();
        let (mut slices, mut encoding) = (1, 0);
        while let PrepareStep::Continue = model.advance(&mut preparation).unwrap() {
            slices += 1;
            encoding += u32::from(preparation.is_encoding());
        }
        (slices, encoding)
    };
    let (from_noise, encoding) = slices(Inputs::from_noise(SIZE));
    assert_eq!(encoding, 0);
    let (of_image, encoding) = slices(Inputs::new(RgbImage::new(SIZE, vec![9; 48 * 32 * 3]).unwrap()));
    assert!(encoding > 0 && of_image > from_noise, "{of_image} slices");
}

#[test]
fn a_scheduler_that_inverts_an_image_is_refused_by_name() {
    let refused = tiny("tiny").prepare_from_noise(&request(SchedulerKind::DDIMInverse), SIZE);
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, PipelineError::TaskRefused { .. }),
        "{refused:?}"
    );
    let (setting, problem) = refused.refused_setting().unwrap();
    assert_eq!(setting, "scheduler");
    assert!(problem.contains("DDIMInverse"), "{problem}");
}
