//! Whole runs against diffusers' img2img pipeline: text states, VAE moments, every latent and the final image.
//!
//! The files are made by `tests/golden/generate/pipeline.py` on the tiny models of `tests/golden/models`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/runs.rs"]
mod runs;
mod support;
#[path = "support/tensor_of.rs"]
mod tensors;

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_gpu::{Emulation, Gpu};
use pentimento_pipeline::{Device, GpuDevice, Precision, ResolvedModels, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close, golden_runs};
use runs::{golden, picture};
use support::{image_of, request_of, tiny, tiny_on};
use tensors::tensor_of;

fn check(case: &str) {
    let (golden, model) = golden(case);
    check_with(case, &golden, &tiny(&model));
}

fn check_with(case: &str, golden: &Golden, model: &StableDiffusion) {
    let request = request_of(golden.about());
    let init = image_of(golden.tensor("input.u8"));

    let conditioning = model.encode_prompts(&request, &[]).unwrap();
    assert_close(
        &format!("{case}: cond"),
        &conditioning.cond.token_states[0],
        golden.tensor("cond"),
        Tolerance::CLIP,
    );
    assert_eq!(
        conditioning.uncond.is_some(),
        golden.get("uncond").is_some(),
        "{case}: guidance on or off"
    );
    if let Some(uncond) = conditioning.uncond {
        assert_close(
            &format!("{case}: uncond"),
            &uncond.token_states[0],
            golden.tensor("uncond"),
            Tolerance::CLIP,
        );
    }
    let moments = model.encode_image(&init).unwrap();
    assert_close(
        &format!("{case}: moments"),
        &moments,
        golden.tensor("moments"),
        Tolerance::VAE,
    );

    let mut states = model.prepare(&request, &init).unwrap();
    assert_eq!(states.len(), 1);
    let mut state = states.remove(0);
    assert_values_close(
        &format!("{case}: start"),
        state.latents().values(),
        &golden.values("start"),
        Tolerance::TRAJECTORY,
    );
    let mut step = 0;
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
        let name = format!("step.{step}");
        assert_values_close(
            &format!("{case}: {name}"),
            state.latents().values(),
            &golden.values(&name),
            Tolerance::TRAJECTORY,
        );
        step += 1;
    }
    assert!(
        golden.get(&format!("step.{step}")).is_none(),
        "{case}: diffusers runs more than {step} steps"
    );

    let found = tensor_of(&model.finish(state).unwrap());
    assert_close(
        &format!("{case}: image"),
        &found,
        golden.tensor("output.u8"),
        Tolerance::PICTURE,
    );
}

fn emulated(precision: Precision) -> Device {
    Device::Gpu(GpuDevice::new(Gpu::emulated(Emulation::default()), precision))
}

/// Everything on the way, within the tolerances of the CPU.
#[test]
fn a_run_on_the_emulated_device_equals_diffusers() {
    for case in ["lcm-distilled", "ddim-guided"] {
        let (golden, model) = golden(case);
        check_with(case, &golden, &tiny_on(&model, &emulated(Precision::F32)));
    }
}

#[test]
fn a_picture_in_half_precision_is_near_the_one_in_full() {
    let (golden, model) = golden("euler-guided");
    let found = picture(&golden, &tiny_on(&model, &emulated(Precision::F16)));
    assert_close(
        "image",
        &found,
        golden.tensor("output.u8"),
        Tolerance::PICTURE_HALF,
    );
}

/// A checkpoint in one file, a pickle in the original layout; diffusers made the picture from the same weights.
#[test]
fn a_single_file_gives_the_picture_of_its_weights() {
    let golden = Golden::open("single/tiny.safetensors");
    let entry = ModelEntry::new(
        "single",
        ModelKind::Checkpoint,
        Source::Path(pentimento_testkit::golden_dir().join("single/tiny.ckpt")),
    );
    let model = StableDiffusion::load_on_cpu(&ResolvedModels::checkpoint(Arc::new(entry))).unwrap();
    let found = picture(&golden, &model);
    assert_close(
        "single: image",
        &found,
        golden.tensor("output.u8"),
        Tolerance::PICTURE,
    );
}

golden_runs! {
    "pipeline", check;
    lcm_plain => "lcm-plain",
    lcm_full_strength => "lcm-full-strength",
    lcm_guided_wide => "lcm-guided-wide",
    lcm_distilled => "lcm-distilled",
    lcm_distilled_guidance_0 => "lcm-distilled-guidance-0",
    lcm_distilled_tall => "lcm-distilled-tall",
    lcm_pipeline => "lcm-pipeline",
    lcm_pipeline_one_step => "lcm-pipeline-one-step",
    lcm_pipeline_low => "lcm-pipeline-low",
    ddim_guided => "ddim-guided",
    ddim_unguided => "ddim-unguided",
    ddim_wide_skip => "ddim-wide-skip",
    euler_guided => "euler-guided",
    euler_unguided => "euler-unguided",
    euler_tall_skip => "euler-tall-skip",
}
