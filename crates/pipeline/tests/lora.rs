//! Whole runs with LoRAs against diffusers' `load_lora_weights` and `set_adapters`, and against ourselves.
//!
//! The files are made by `tests/golden/generate/lora_pipeline.py` for the tiny model of `tests/golden/models`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_pipeline::{
    Component, ComponentKey, ComponentRole, DenoiseState, GpuDevice, LoraReport, ModelSource, Precision,
    ResolvedModels, StableDiffusion,
};
use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close, golden_dir};
use pentimento_types::{Recipe, RgbImage, Size};
use support::{image_of, request_of, tiny};

fn entry(kind: ModelKind, path: PathBuf) -> Arc<ModelEntry> {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    Arc::new(ModelEntry::new(&name, kind, Source::Path(path)))
}

fn lora(name: &str) -> Arc<ModelEntry> {
    let file = format!("lora_pipeline/{name}.safetensors");
    entry(ModelKind::Lora, golden_dir().join(file))
}

/// The tiny model with LoRAs of these names and strengths.
fn models(loras: &[(&str, f64)]) -> ResolvedModels {
    let checkpoint = entry(ModelKind::Checkpoint, golden_dir().join("models/tiny"));
    ResolvedModels {
        loras: loras
            .iter()
            .map(|(name, strength)| (lora(name), *strength))
            .collect(),
        ..ResolvedModels::checkpoint(checkpoint)
    }
}

/// The LoRAs of a golden run.
fn loras_of(golden: &Golden) -> Vec<(String, f64)> {
    let list = golden.about()["loras"].as_array().unwrap();
    let one = |lora: &serde_json::Value| {
        let name = lora["file"].as_str().unwrap().to_owned();
        (name, lora["strength"].as_f64().unwrap())
    };
    list.iter().map(one).collect()
}

fn models_of(golden: &Golden) -> ResolvedModels {
    let loras = loras_of(golden);
    let loras: Vec<(&str, f64)> = loras
        .iter()
        .map(|(name, strength)| (&**name, *strength))
        .collect();
    models(&loras)
}

fn load(models: &ResolvedModels) -> StableDiffusion {
    StableDiffusion::load_on_cpu(models).unwrap()
}

fn picture(model: &StableDiffusion, request: &Recipe, init: &RgbImage) -> RgbImage {
    let mut states = model.prepare(request, init).unwrap();
    let mut state = states.remove(0);
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

fn tensor_of(image: &RgbImage) -> Tensor {
    let Size { width, height } = image.size();
    Tensor::from_slice(image.pixels(), (height as usize, width as usize, 3), &Device::Cpu)
        .unwrap()
        .to_dtype(DType::U8)
        .unwrap()
}

fn check(case: &str, models: &ResolvedModels) {
    let golden = Golden::open(&format!("lora_pipeline/{case}.safetensors"));
    let request = request_of(golden.about());
    let init = image_of(golden.tensor("input.u8"));
    let model = load(models);
    let conditioning = model.encode_prompts(&request, &[]).unwrap();
    assert_close(
        &format!("{case}: cond"),
        &conditioning.cond.token_states[0],
        golden.tensor("cond"),
        Tolerance::CLIP,
    );
    let mut states = model.prepare(&request, &init).unwrap();
    let mut state = states.remove(0);
    let mut step = 0;
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
        let name = format!("step.{step}");
        let expected = golden.values(&name);
        let what = format!("{case}: {name}");
        assert_values_close(&what, state.latents().values(), &expected, Tolerance::TRAJECTORY);
        step += 1;
    }
    let found = tensor_of(&model.finish(state).unwrap());
    let expected = golden.tensor("output.u8");
    assert_close(&format!("{case}: image"), &found, expected, Tolerance::PICTURE);
    let plain = picture(&tiny("tiny"), &request, &init);
    let differs = pentimento_testkit::compare(&tensor_of(&plain), expected).unwrap();
    assert!(
        differs.mean * 255.0 > 1.0 || differs.mean > 1.0,
        "{case}: the LoRAs change nothing"
    );
}

#[test]
fn two_and_five_loras_are_those_of_diffusers() {
    for case in ["two", "five", "lcm"] {
        let golden = Golden::open(&format!("lora_pipeline/{case}.safetensors"));
        check(case, &models_of(&golden));
    }
}

/// As the LCM route has it: one LoRA is in the weights from the start, and the set stands on it.
#[test]
fn a_set_stands_on_an_lcm_lora() {
    let golden = Golden::open("lora_pipeline/lcm.safetensors");
    let names = loras_of(&golden);
    assert_eq!(
        names[0],
        ("lora-conv".to_owned(), 1.0),
        "at the strength of an LCM-LoRA"
    );
    let models = ResolvedModels {
        lcm_loras: Some(vec![lora("lora-conv")]),
        ..models(&[(&names[1].0, names[1].1)])
    };
    check("lcm", &models);
    assert_eq!(LoraReport::of(&models).unwrap(), LoraReport::default());
    // A distilled checkpoint needs none, and has other weights to begin with.
    let distilled = ResolvedModels {
        lcm_loras: Some(vec![lora("lora-conv")]),
        ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, golden_dir().join("models/tiny-lcm")))
    };
    let keys = |models: &ResolvedModels| {
        ModelSource::open(models, &pentimento_pipeline::Device::Cpu)
            .unwrap()
            .keys()
            .unwrap()
    };
    let plain = ResolvedModels::checkpoint(Arc::clone(&distilled.checkpoint));
    assert_eq!(keys(&distilled), keys(&plain));
    // What is merged becomes whole layers of f32: far more than a branch beside them takes.
    let unet = |models: &ResolvedModels| {
        let of_unet = keys(models)
            .into_iter()
            .find(|key| key.role() == ComponentRole::UNet);
        of_unet.unwrap()
    };
    let beside = unet(&self::models(&[("lora-conv", 1.0)]));
    let merged = unet(&ResolvedModels {
        lcm_loras: Some(vec![lora("lora-conv")]),
        ..self::models(&[])
    });
    let bare = beside.base().unwrap().expected_bytes();
    let more = merged.expected_bytes() - bare;
    assert!(
        more > beside.expected_bytes(),
        "{more} {}",
        beside.expected_bytes()
    );
}

#[test]
fn a_run_without_an_lcm_lora_is_told_apart() {
    let missing = ResolvedModels {
        lcm_loras: Some(Vec::new()),
        ..models(&[])
    };
    assert!(LoraReport::of(&missing).unwrap().lcm_is_missing);
    assert!(!LoraReport::of(&models(&[])).unwrap().lcm_is_missing);
}

#[test]
fn rows_of_a_set_are_the_same_alone_and_in_company() {
    let golden = Golden::open("lora_pipeline/five.safetensors");
    let model = load(&models_of(&golden));
    let request = request_of(golden.about());
    let other = Recipe {
        seed: 99,
        prompt: "a lighthouse".to_owned(),
        ..request.clone()
    };
    let init = image_of(golden.tensor("input.u8"));
    let alone = picture(&model, &request, &init);
    let mut first = model.prepare(&request, &init).unwrap().remove(0);
    let mut second = model.prepare(&other, &init).unwrap().remove(0);
    while first.evaluations_left() > 0 {
        model.denoise(&mut [&mut second, &mut first]).unwrap();
    }
    assert_eq!(model.finish(first).unwrap().pixels(), alone.pixels());
    // Another order of the same sum may have other bits; the same order never has.
    let again = picture(&load(&models_of(&golden)), &request, &init);
    assert_eq!(again.pixels(), alone.pixels());
}

#[test]
fn components_differ_by_files_and_strengths_and_share_what_no_lora_changes() {
    let keys = |models: &ResolvedModels| {
        ModelSource::open(models, &pentimento_pipeline::Device::Cpu)
            .unwrap()
            .keys()
            .unwrap()
    };
    let plain = keys(&models(&[]));
    let set = keys(&models(&[("lora-unet", 0.5)]));
    let changed: Vec<String> = set
        .iter()
        .filter(|key| !plain.contains(key))
        .map(|key| key.role().to_string())
        .collect();
    assert_eq!(changed, ["unet"], "this LoRA is for the UNet alone");
    let base = set.iter().find_map(|key| key.base()).unwrap();
    assert!(plain.contains(&base));
    assert_ne!(set, keys(&models(&[("lora-unet", 0.6)])));
    assert_ne!(
        keys(&models(&[("lora-unet", 0.5), ("lora-peft", 0.5)])),
        keys(&models(&[("lora-peft", 0.5), ("lora-unet", 0.5)]))
    );
    let names = ["lora-peft", "lora-kohya"];
    let sizes = names.map(|name| golden_dir().join(format!("lora_pipeline/{name}.safetensors")));
    let files: u64 = sizes
        .iter()
        .map(|path| fs_err::metadata(path).unwrap().len())
        .sum();
    let set = keys(&models(&names.map(|name| (name, 1.0))));
    let own: Vec<u64> = set
        .iter()
        .filter(|key| key.base().is_some())
        .map(|key| key.expected_bytes())
        .collect();
    assert_eq!(own.len(), 2, "the text encoder and the UNet");
    // The branches, whose small ranks are filled up, and the files' numbers while they are made.
    assert!(
        own.iter().all(|bytes| (1..6 * files).contains(bytes)),
        "{own:?} of {files}"
    );
}

#[test]
fn a_lora_of_another_base_or_kind_is_refused_by_name_without_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let wide = folder.path().join("wide.safetensors");
    let layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = [
        (format!("{layer}.lora_A.weight"), zeros((4, 1280))),
        (format!("{layer}.lora_B.weight"), zeros((1280, 4))),
    ];
    candle_core::safetensors::save(&tensors.into_iter().collect(), &wide).unwrap();
    let checkpoint = golden_dir().join("models/tiny/unet/diffusion_pytorch_model.safetensors");
    for path in [wide, checkpoint] {
        let models = ResolvedModels {
            loras: vec![(entry(ModelKind::Lora, path.clone()), 1.0)],
            ..models(&[])
        };
        let error = LoraReport::of(&models).unwrap_err();
        let (name, reason) = error.refused_lora().unwrap();
        assert_eq!(name, path.file_stem().unwrap().to_string_lossy());
        assert!(!reason.contains(folder.path().to_str().unwrap()), "{reason}");
        assert!(!reason.contains(golden_dir().to_str().unwrap()), "{reason}");
        println!("{reason}");
        assert!(StableDiffusion::load_on_cpu(&models).is_err());
    }
}

/// Branches beside the layers, and changes that are no product, as on the CPU.
#[test]
fn a_set_on_the_emulated_device_makes_the_picture_of_the_cpu() {
    let golden = Golden::open("lora_pipeline/five.safetensors");
    let init = image_of(golden.tensor("input.u8"));
    let gpu = pentimento_gpu::Gpu::emulated(pentimento_gpu::Emulation::default());
    for (precision, tolerance) in [
        (Precision::F32, Tolerance::PICTURE),
        (Precision::F16, Tolerance::PICTURE_HALF),
    ] {
        let device = pentimento_pipeline::Device::Gpu(GpuDevice::new(gpu.clone(), precision));
        let model = StableDiffusion::load(&models_of(&golden), &device).unwrap();
        let found = picture(&model, &request_of(golden.about()), &init);
        assert_close("image", &tensor_of(&found), golden.tensor("output.u8"), tolerance);
    }
}

/// Two sets and none in one forward on the emulated device: each the same bytes as alone, and the CPU's picture. Changes that are
/// no branches have programs of their own.
#[test]
fn sets_share_forwards_on_the_emulated_device() {
    let golden = Golden::open("lora_pipeline/two.safetensors");
    let init = image_of(golden.tensor("input.u8"));
    let request = Recipe {
        steps: 3,
        ..request_of(golden.about())
    };
    let sets = [
        vec![("lora-peft", 0.8)],
        vec![("lora-kohya", 1.2), ("lora-unet", 0.5)],
        vec![],
    ];
    let gpu = pentimento_gpu::Gpu::emulated(pentimento_gpu::Emulation::default());
    let device = pentimento_pipeline::Device::Gpu(GpuDevice::new(gpu, Precision::F16));
    let bases = parts(&[], &[], &device);
    let with = |set: &[(&str, f64)]| {
        let source = ModelSource::open(&models(set), &device).unwrap();
        source.assemble(parts(set, &bases, &device)).unwrap()
    };
    let with_sets = sets.each_ref().map(|set| with(set));
    let prepared = |model: &StableDiffusion| model.prepare(&request, &init).unwrap().remove(0);
    let mut alone = with_sets.each_ref().map(prepared);
    let mut states = with_sets.each_ref().map(prepared);
    assert!(
        states
            .iter()
            .all(|state| state.programs() == states[0].programs())
    );
    let merged = prepared(&with(&[("lora-conv", 1.0)]));
    assert_ne!(merged.programs(), states[0].programs());
    while states[0].evaluations_left() > 0 {
        let mut rows: Vec<&mut DenoiseState> = states.iter_mut().collect();
        with_sets[1].denoise(&mut rows).unwrap();
        for ((model, alone), state) in with_sets.iter().zip(&mut alone).zip(&states) {
            model.denoise(&mut [alone]).unwrap();
            assert_eq!(alone.latents().values(), state.latents().values());
        }
    }
    assert_ne!(states[0].latents().values(), states[1].latents().values());
    assert_ne!(states[1].latents().values(), states[2].latents().values());
    let [_, state, _] = states;
    let found = tensor_of(&with_sets[1].finish(state).unwrap());
    let expected = tensor_of(&picture(&load(&models(&sets[1])), &request, &init));
    assert_close("image", &found, &expected, Tolerance::PICTURE_HALF);
}

/// The components of the model with this set, of which those without LoRAs are `bases`; these themselves where there are none.
fn parts(set: &[(&str, f64)], bases: &[Component], device: &pentimento_pipeline::Device) -> Vec<Component> {
    let source = ModelSource::open(&models(set), device).unwrap();
    let keys = source.keys().unwrap();
    let part = |(number, key): (usize, &ComponentKey)| match (bases.get(number), key.base()) {
        (Some(base), None) => base.clone(),
        (base, _) => source.read(key, base).unwrap().0,
    };
    keys.iter().enumerate().map(part).collect()
}
