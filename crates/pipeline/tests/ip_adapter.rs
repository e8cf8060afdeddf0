//! Whole runs with IP-Adapters against diffusers' `load_ip_adapter`, and against ourselves.
//!
//! The files are made by `tests/golden/generate/ip_adapter.py` for the tiny models of `tests/golden/models`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_pipeline::{
    Beside, ComponentRole, DenoiseState, IpAdapterEntries, ModelSource, PipelineError, PrepareInput,
    PrepareStep, ResolvedModels, RunPlan, StableDiffusion,
};
use pentimento_testkit::{
    Golden, Tolerance, assert_close, assert_values_close, compare, golden_dir, golden_runs,
};
use pentimento_types::{ErrorKind, HasKind, Inputs, IpAdapterRef, ModelId, Recipe, RgbImage, Start, Task};
use support::{image_of, request_of, tiny};

fn entry(kind: ModelKind, path: PathBuf) -> Arc<ModelEntry> {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    Arc::new(ModelEntry::new(&name, kind, Source::Path(path)))
}

/// An adapter whose encoder lies beside it.
fn adapter(path: PathBuf) -> IpAdapterEntries {
    IpAdapterEntries {
        adapter: entry(ModelKind::IpAdapter, path),
        image_encoder: None,
    }
}

fn golden_adapter(file: &str) -> IpAdapterEntries {
    adapter(golden_dir().join("ip_adapter").join(file))
}

fn tiny_path() -> PathBuf {
    golden_dir().join("models/tiny")
}

/// A folder with everything of a tiny model; those of later models have only what is not in `tiny`.
fn whole(model: &str) -> (PathBuf, Option<tempfile::TempDir>) {
    if model == "tiny" {
        return (tiny_path(), None);
    }
    let folder = tempfile::tempdir().unwrap();
    for source in [tiny_path(), golden_dir().join("models").join(model)] {
        copy(&source, folder.path());
    }
    (folder.path().to_owned(), Some(folder))
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs_err::copy(&path, &target).unwrap();
        }
    }
}

fn load(models: &ResolvedModels) -> StableDiffusion {
    StableDiffusion::load_on_cpu(models).unwrap()
}

/// The model of a golden run, with its LoRA and, unless it is to be without, its adapter.
fn model_of(golden: &Golden, with_adapter: bool) -> StableDiffusion {
    let about = golden.about();
    let (path, _folder) = whole(about["model"].as_str().unwrap());
    let lora = about["lora"].as_array().map(|lora| {
        let file = format!("lora_pipeline/{}.safetensors", lora[0].as_str().unwrap());
        let entry = entry(ModelKind::Lora, golden_dir().join(file));
        (entry, lora[1].as_f64().unwrap())
    });
    let file = about["adapter"].as_str().unwrap();
    load(&ResolvedModels {
        loras: lora.into_iter().collect(),
        ip_adapter: with_adapter.then(|| golden_adapter(file)),
        ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, path))
    })
}

/// The recipe of a golden run at this scale; None is one without an adapter.
fn recipe_of(golden: &Golden, scale: Option<f64>) -> Recipe {
    Recipe {
        ip_adapter: scale.map(|scale| IpAdapterRef {
            model: ModelId::new("adapter"),
            scale,
        }),
        ..request_of(golden.about())
    }
}

fn scale_of(golden: &Golden) -> f64 {
    golden.about()["scale"].as_f64().unwrap()
}

fn inputs(start: Start<RgbImage>, picture: Option<RgbImage>) -> Inputs<RgbImage> {
    let inputs = Inputs::starting(start);
    match picture {
        Some(picture) => inputs.with_ip_adapter(picture),
        None => inputs,
    }
}

fn begin(
    model: &StableDiffusion,
    recipe: Recipe,
    (init, mask): (RgbImage, Option<RgbImage>),
    picture: Option<RgbImage>,
) -> Result<DenoiseState, PipelineError> {
    let mut preparation = model.begin(PrepareInput {
        recipe: Arc::new(recipe),
        images: inputs(Start::Image { init, mask }, picture),
        embeddings: Vec::new(),
        max_prompt_tokens: usize::MAX,
    })?;
    loop {
        if let PrepareStep::Done(mut states) = model.advance(&mut preparation)? {
            return Ok(states.remove(0));
        }
    }
}

/// A golden run's first state at this scale, shown the image of `shown`.
fn start(model: &StableDiffusion, golden: &Golden, scale: f64, shown: &Golden) -> DenoiseState {
    let inputs = (
        image_of(golden.tensor("input.u8")),
        golden.get("mask.u8").map(image_of),
    );
    let picture = image_of(shown.tensor("image.u8"));
    begin(model, recipe_of(golden, Some(scale)), inputs, Some(picture)).unwrap()
}

fn run(model: &StableDiffusion, mut state: DenoiseState) -> RgbImage {
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

fn levels(values: Vec<u8>) -> Tensor {
    let tensor = Tensor::new(values, &Device::Cpu).unwrap();
    tensor.to_dtype(DType::U8).unwrap()
}

/// As PIL's `convert("L")`.
fn grey(pixel: &[u8]) -> u32 {
    (u32::from(pixel[0]) * 19595 + u32::from(pixel[1]) * 38470 + u32::from(pixel[2]) * 7471 + 0x8000) >> 16
}

fn check(case: &str) {
    let golden = Golden::open(&format!("ip_adapter_runs/{case}.safetensors"));
    let model = model_of(&golden, true);
    let picture = image_of(golden.tensor("image.u8"));
    let is_guided = golden.get("uncond_tokens").is_some();
    let (tokens, uncond) = model.image_tokens(&picture, is_guided).unwrap();
    let close = |name: &str, found: &Tensor| {
        assert_close(
            &format!("{case}: {name}"),
            found,
            golden.tensor(name),
            Tolerance::IMAGE_TOKENS,
        );
    };
    close("tokens", &tokens);
    assert_eq!(uncond.is_some(), is_guided, "{case}");
    if let Some(uncond) = &uncond {
        close("uncond_tokens", uncond);
    }
    let mut state = start(&model, &golden, scale_of(&golden), &golden);
    let close = |name: &str, state: &DenoiseState| {
        assert_values_close(
            &format!("{case}: {name}"),
            state.latents().values(),
            &golden.values(name),
            Tolerance::TRAJECTORY,
        );
    };
    close("start", &state);
    let mut step = 0;
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
        close(&format!("step.{step}"), &state);
        step += 1;
    }
    assert!(golden.get(&format!("step.{step}")).is_none(), "{case}");
    let found = model.finish(state).unwrap();
    // diffusers leaves it to its user to put the kept pixels back, and so they are not compared.
    let mask = golden.get("mask.u8").map(image_of);
    let painted = |number: usize| {
        let mask = mask.as_ref();
        mask.is_none_or(|mask| grey(&mask.pixels()[3 * number..3 * number + 3]) >= 128)
    };
    let compared = |image: &RgbImage| {
        let pixels = image.pixels().chunks_exact(3).enumerate();
        let pixels = pixels.filter(|(number, _)| painted(*number));
        levels(pixels.flat_map(|(_, pixel)| pixel.to_vec()).collect())
    };
    let expected = compared(&image_of(golden.tensor("output.u8")));
    assert_close(
        &format!("{case}: image"),
        &compared(&found),
        &expected,
        Tolerance::PICTURE,
    );
}

golden_runs! {
    "ip_adapter_runs", check;
    sd15_one => "sd15-one",
    sd15_half => "sd15-half",
    sd15_zero => "sd15-zero",
    sd15_unguided => "sd15-unguided",
    sd15_lora => "sd15-lora",
    sd15_blend => "sd15-blend",
    sd15_plus_one => "sd15-plus-one",
    sd15_plus_half => "sd15-plus-half",
    sd15_plus_zero => "sd15-plus-zero",
    sd15_plus_unguided => "sd15-plus-unguided",
    sd15_plus_lora => "sd15-plus-lora",
    sd15_plus_blend => "sd15-plus-blend",
    sdxl_one => "sdxl-one",
    sdxl_half => "sdxl-half",
    sdxl_zero => "sdxl-zero",
    sdxl_blend => "sdxl-blend",
    sdxl_plus_one => "sdxl-plus-one",
    sdxl_plus_half => "sdxl-plus-half",
    sdxl_plus_zero => "sdxl-plus-zero",
    sdxl_plus_unguided => "sdxl-plus-unguided",
}

#[test]
fn scale_0_gives_the_bytes_of_no_adapter_and_half_gives_others() {
    for case in ["sd15-half", "sd15-plus-half", "sdxl-half", "sdxl-plus-half"] {
        let golden = Golden::open(&format!("ip_adapter_runs/{case}.safetensors"));
        let (with, without) = (model_of(&golden, true), model_of(&golden, false));
        let init = image_of(golden.tensor("input.u8"));
        let plain = begin(&without, recipe_of(&golden, None), (init, None), None).unwrap();
        let plain = run(&without, plain);
        let zero = run(&with, start(&with, &golden, 0.0, &golden));
        assert_eq!(zero.pixels(), plain.pixels(), "{case}");
        let half = run(&with, start(&with, &golden, 0.5, &golden));
        let [half, plain] = [half, plain].map(|image| levels(image.pixels().to_vec()));
        assert!(compare(&half, &plain).unwrap().mean > 3.0, "{case}");
    }
}

/// Two requests in one batch: of other pictures, scales, guidance and steps, in any order.
#[test]
fn images_of_one_adapter_share_their_forwards_and_do_not_meet() {
    for [first, second] in [
        ["sd15-one", "sd15-blend"],
        ["sd15-plus-one", "sd15-plus-lora"],
        ["sdxl-one", "sdxl-blend"],
        ["sdxl-plus-one", "sdxl-plus-unguided"],
    ] {
        let [own, other] =
            [first, second].map(|case| Golden::open(&format!("ip_adapter_runs/{case}.safetensors")));
        let model = model_of(&own, true);
        let starts = || {
            [
                start(&model, &own, 1.0, &own),
                start(&model, &own, 0.0, &own),
                start(&model, &own, 0.4, &other),
                start(&model, &own, 1.0, &other),
            ]
        };
        let shapes = starts().map(|state| state.conditioning_shape());
        assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
        let alone = starts().map(|state| run(&model, state));
        assert_ne!(
            alone[0].pixels(),
            alone[3].pixels(),
            "another picture changes nothing"
        );
        let mut together = starts();
        while together[0].evaluations_left() > 0 {
            let mut states: Vec<&mut DenoiseState> = together.iter_mut().rev().collect();
            model.denoise(&mut states).unwrap();
        }
        for (state, alone) in together.into_iter().zip(&alone) {
            assert_eq!(model.finish(state).unwrap().pixels(), alone.pixels(), "{first}");
        }
    }
}

#[test]
fn an_adapter_and_its_encoder_are_components_beside_an_unchanged_base() {
    let models = |ip_adapter: Option<IpAdapterEntries>| ResolvedModels {
        ip_adapter,
        ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, tiny_path()))
    };
    let keys = |models: &ResolvedModels| {
        ModelSource::open(models, &pentimento_pipeline::Device::Cpu)
            .unwrap()
            .keys()
            .unwrap()
    };
    let plain = keys(&models(None));
    let one = keys(&models(Some(golden_adapter("ip-adapter_sd15.safetensors"))));
    let other = keys(&models(Some(golden_adapter("ip-adapter-plus_sd15.bin"))));
    assert!(plain.iter().all(|key| one.contains(key)), "the base is shared");
    let roles = |keys: &[pentimento_pipeline::ComponentKey]| {
        let more = keys.iter().filter(|key| !plain.contains(key));
        more.map(|key| key.role()).collect::<Vec<_>>()
    };
    assert_eq!(roles(&one), ComponentRole::OF_IP_ADAPTER);
    assert!(one.iter().all(|key| key.base().is_none()));
    let encoder = |keys: &[pentimento_pipeline::ComponentKey]| {
        let mut keys = keys.iter();
        keys.find(|key| key.role() == ComponentRole::ImageEncoder)
            .cloned()
    };
    assert_eq!(encoder(&one), encoder(&other), "adapters share their encoder");
    assert!(encoder(&one).unwrap().expected_bytes() > 50_000);
}

#[test]
fn a_picture_takes_slices_of_its_own_and_is_counted() {
    let golden = Golden::open("ip_adapter_runs/sd15-plus-one.safetensors");
    let (with, without) = (model_of(&golden, true), model_of(&golden, false));
    let slices = |model: &StableDiffusion, scale: Option<f64>| {
        let mut preparation = model
            .begin(PrepareInput {
                recipe: Arc::new(recipe_of(&golden, scale)),
                images: inputs(
                    Start::Image {
                        init: image_of(golden.tensor("input.u8")),
                        mask: None,
                    },
                    scale.map(|_| image_of(golden.tensor("image.u8"))),
                ),
                embeddings: Vec::new(),
                max_prompt_tokens: usize::MAX,
            })
            .unwrap();
        let bytes = model.prompt_bytes(&preparation);
        let mut count = 1;
        while let PrepareStep::Continue = model.advance(&mut preparation).unwrap() {
            count += 1;
        }
        (count, bytes)
    };
    let (plain, plain_bytes) = slices(&without, None);
    let (shown, shown_bytes) = slices(&with, Some(1.0));
    // Two pictures, the second of zeros: cut into patches, through the encoder; and the slice that finds both done.
    assert_eq!(shown, plain + 5);
    assert_eq!(
        slices(&with, Some(0.0)).0,
        plain + 1,
        "nothing is computed at scale 0"
    );
    assert!(shown_bytes > plain_bytes);
}

#[test]
fn an_image_and_an_adapter_go_together() {
    let golden = Golden::open("ip_adapter_runs/sd15-one.safetensors");
    let (with, without) = (model_of(&golden, true), tiny("tiny"));
    let picture = || Some(image_of(golden.tensor("image.u8")));
    for (model, scale, picture) in [
        (&with, Some(1.0), None),
        (&with, None, picture()),
        (&without, Some(1.0), picture()),
    ] {
        let init = image_of(golden.tensor("input.u8"));
        let error = begin(model, recipe_of(&golden, scale), (init, None), picture).unwrap_err();
        assert!(matches!(error, PipelineError::Mismatch { .. }), "{error}");
    }
}

/// Which adapter, and a sentence that may be shown.
fn refused(models: &ResolvedModels, expected: &str) {
    let recipe = request_of(Golden::open("ip_adapter_runs/sd15-one.safetensors").about());
    let error = RunPlan::of(models, &recipe, Task::ImageToImage).unwrap_err();
    let (beside, name, reason) = error.refused_beside().unwrap();
    assert_eq!(beside, Beside::IpAdapter);
    assert_eq!(name, models.ip_adapter.as_ref().unwrap().adapter.name);
    assert!(reason.contains(expected), "{reason}");
    for secret in [golden_dir(), std::env::temp_dir()] {
        assert!(!reason.contains(&*secret.to_string_lossy()), "{reason}");
    }
    assert!(StableDiffusion::load_on_cpu(models).is_err(), "{expected}");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_before_anything_is_loaded() {
    let with = |ip_adapter: IpAdapterEntries| ResolvedModels {
        ip_adapter: Some(ip_adapter),
        ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, tiny_path()))
    };
    refused(
        &with(golden_adapter("ip-adapter_sdxl.bin")),
        "it is for text states of 56 numbers, and the checkpoint's have 32",
    );
    let lora = golden_dir().join("lora_pipeline/lora-peft.safetensors");
    refused(
        &with(adapter(lora)),
        "a file without a tensor of an IP-Adapter instead of",
    );
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("alone.safetensors");
    fs_err::copy(
        golden_dir().join("ip_adapter/ip-adapter_sd15.safetensors"),
        &alone,
    )
    .unwrap();
    refused(&with(adapter(alone.clone())), "has no image encoder beside it");
    // One of another width, named by the entry or found.
    let encoder = folder.path().join("image_encoder");
    copy(&golden_dir().join("ip_adapter/image_encoder"), &encoder);
    let config = encoder.join("config.json");
    let text = fs_err::read_to_string(&config).unwrap();
    fs_err::write(
        &config,
        text.replace("\"projection_dim\": 24", "\"projection_dim\": 25"),
    )
    .unwrap();
    let width = "it takes embeddings of 24 numbers, and its image encoder gives 25";
    refused(&with(adapter(alone.clone())), width);
    let named = IpAdapterEntries {
        image_encoder: Some(entry(ModelKind::ImageEncoder, encoder)),
        ..golden_adapter("ip-adapter_sd15.safetensors")
    };
    refused(&with(named), width);
    let error = RunPlan::of(
        &with(adapter(folder.path().join("nowhere.bin"))),
        &request_of(Golden::open("ip_adapter_runs/sd15-one.safetensors").about()),
        Task::ImageToImage,
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// As in the published repository: some adapters of one folder want the encoder of the other.
#[test]
fn the_encoder_that_fits_is_found_in_the_other_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (models, sdxl) = (folder.path().join("models"), folder.path().join("sdxl_models"));
    let golden = golden_dir().join("ip_adapter");
    for place in [&models, &sdxl] {
        copy(&golden.join("image_encoder"), &place.join("image_encoder"));
    }
    let config = sdxl.join("image_encoder/config.json");
    let text = fs_err::read_to_string(&config).unwrap();
    fs_err::write(
        &config,
        text.replace("\"hidden_size\": 32", "\"hidden_size\": 64"),
    )
    .unwrap();
    let file = sdxl.join("ip-adapter-plus_sdxl_vit-h.safetensors");
    fs_err::copy(golden.join("ip-adapter-plus_sdxl.safetensors"), &file).unwrap();
    let (path, _folder) = whole("tiny-sdxl");
    load(&ResolvedModels {
        ip_adapter: Some(adapter(file)),
        ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, path))
    });
}
