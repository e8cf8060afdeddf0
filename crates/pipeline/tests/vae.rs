//! Another VAE than the checkpoint's own, against diffusers' pipeline with that VAE put in.
//!
//! The files are made by `tests/golden/generate/tiny_vae.py` on the tiny model of `tests/golden/models`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/tensor_of.rs"]
mod tensors;

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_pipeline::{Device, ModelSource, PipelineError, ResolvedModels, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance, assert_close, golden_dir};
use pentimento_types::{Recipe, RgbImage, SchedulerKind};
use support::{image_of, request, request_of, tiny};
use tensors::tensor_of;

fn with_vae(checkpoint: &str, vae: &str) -> ResolvedModels {
    let entry = |kind, path: &str| {
        let source = Source::Path(golden_dir().join(path));
        Arc::new(ModelEntry::new(path, kind, source))
    };
    ResolvedModels {
        vae: Some(entry(ModelKind::Vae, vae)),
        ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, checkpoint))
    }
}

fn load(checkpoint: &str, vae: &str) -> Result<StableDiffusion, PipelineError> {
    StableDiffusion::load(&with_vae(checkpoint, vae), &Device::Cpu)
}

fn generate(model: &StableDiffusion, recipe: &Recipe, init: &RgbImage) -> RgbImage {
    let mut state = model.prepare(recipe, init).unwrap().remove(0);
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

fn check(vae: &str, golden: &str) {
    let golden = Golden::open(&format!("vae/{golden}.safetensors"));
    let model = load("models/tiny", vae).unwrap();
    let init = image_of(golden.tensor("input.u8"));
    let found = generate(&model, &request_of(golden.about()), &init);
    assert_close(
        vae,
        &tensor_of(&found),
        golden.tensor("output.u8"),
        Tolerance::PICTURE,
    );
}

#[test]
fn a_vae_in_one_file_of_the_original_layout_gives_diffusers_picture() {
    check("vae/kl.safetensors", "kl-picture");
}

#[test]
fn a_tiny_autoencoder_gives_diffusers_picture_in_every_layout() {
    for vae in [
        "vae/tiny-taesd",
        "vae/taesd_encoder.pth",
        "vae/taesd_decoder.safetensors",
    ] {
        check(vae, "taesd");
    }
}

#[test]
fn the_checkpoint_s_own_vae_by_another_name_changes_no_byte() {
    let recipe = Recipe {
        guidance_scale: 3.0,
        ..request(SchedulerKind::DDIM)
    };
    let golden = Golden::open("vae/taesd.safetensors");
    let init = image_of(golden.tensor("input.u8"));
    let own = generate(&tiny("tiny"), &recipe, &init);
    for vae in ["models/tiny/vae", "models/tiny"] {
        let found = generate(&load("models/tiny", vae).unwrap(), &recipe, &init);
        assert!(found == own, "{vae}");
    }
}

/// Its file says nothing of the factor, so that it depends on the checkpoint what it is.
#[test]
fn one_file_beside_checkpoints_of_other_factors_is_another_component() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("checkpoint");
    for part in ["vae", "unet", "text_encoder", "tokenizer", "scheduler"] {
        let from = golden_dir().join("models/tiny").join(part);
        fs_err::create_dir_all(copied.join(part)).unwrap();
        for file in fs_err::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs_err::copy(file.path(), copied.join(part).join(file.file_name())).unwrap();
        }
    }
    let config = copied.join("vae/config.json");
    let text = fs_err::read_to_string(&config).unwrap();
    assert!(text.contains("0.18215"));
    fs_err::write(&config, text.replace("0.18215", "0.13025")).unwrap();
    let keys = |checkpoint: &str, vae: &str| {
        let source = ModelSource::open(&with_vae(checkpoint, vae), &Device::Cpu).unwrap();
        source.keys().unwrap()
    };
    let vae_of = |keys: &[pentimento_pipeline::ComponentKey]| {
        let role = pentimento_pipeline::ComponentRole::Vae;
        keys.iter().find(|key| key.role() == role).cloned().unwrap()
    };
    let copied = copied.to_str().unwrap();
    for (vae, same) in [("vae/kl.safetensors", false), ("vae/tiny-taesd", true)] {
        let [here, there] = ["models/tiny", copied].map(|checkpoint| vae_of(&keys(checkpoint, vae)));
        assert_eq!(here == there, same, "{vae}");
    }
}

#[test]
fn a_vae_of_other_latents_or_no_vae_is_refused_by_name() {
    let error = load("models/tiny", "vae/inner_decoder.pth").unwrap_err();
    assert!(error.to_string().contains("6 latent channels"), "{error}");
    let error = load(
        "models/tiny",
        "models/tiny/unet/diffusion_pytorch_model.safetensors",
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("with the VAE `models/tiny/unet"),
        "{error}"
    );
}
