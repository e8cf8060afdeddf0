//! A checkpoint in one file gives, bit for bit, the picture of the same weights in a diffusers folder.
//!
//! The names and shapes are those of `tests/golden/single/names.json`, which diffusers' own conversion has confirmed; the
//! numbers are made here, since whatever they are must arrive at the same place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::support::request;
use candle_core::{DType, Device, Tensor};
use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_pipeline::{ResolvedModels, StableDiffusion};
use pentimento_testkit::golden_dir;
use pentimento_types::{Recipe, RgbImage, SchedulerKind, Size};
use pentimento_weights::Checkpoint;
use serde_json::{Value, json};

/// Original name, name in diffusers, shape in the file.
type Row = (String, String, Vec<usize>);
type Tensors = HashMap<String, Tensor>;

const PARTS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];

fn rows(table: &Value, network: &str, part: &str) -> Vec<Row> {
    let read = |rows: &Value| -> Vec<Row> { serde_json::from_value(rows.clone()).unwrap() };
    let found = &table[network]["tensors"][part];
    if found.is_null() {
        return Vec::new();
    }
    if found.is_array() {
        return read(found);
    }
    if !found["alone"].is_null() {
        return read(&found["alone"]);
    }
    let differing = read(&found["differing"]);
    let replaced: BTreeSet<&String> = differing.iter().map(|(original, ..)| original).collect();
    let mut all = rows(table, table[network]["like"].as_str().unwrap(), part);
    all.retain(|(original, ..)| !replaced.contains(original));
    all.extend(differing);
    all
}

/// Numbers of unit gain that are different for every name.
fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let phase = name
        .bytes()
        .fold(0.0_f32, |phase, byte| phase * 1.7 % 90.0 + f32::from(byte));
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let (offset, scale) = match shape {
        [_] if name.ends_with("weight") => (1.0, 0.1),
        [_] => (0.0, 0.1),
        [_, rest @ ..] => (0.0, 1.4 / (rest.iter().product::<usize>() as f32).sqrt()),
        [] => (0.0, 1.0),
    };
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let values = (0..count).map(|i| offset + scale * (i as f32 * 1.37 + phase).sin());
    let values = Tensor::from_iter(values, &Device::Cpu).unwrap();
    values.reshape(shape).unwrap().to_dtype(DType::F16).unwrap()
}

/// The tensors of a part in diffusers' layout, and of all parts in the original one.
fn both_layouts(table: &Value, network: &str) -> (BTreeMap<&'static str, Tensors>, Tensors) {
    let (mut folders, mut single) = (BTreeMap::new(), Tensors::new());
    for part in PARTS {
        let mut folder = Tensors::new();
        for (original, name, shape) in rows(table, network, part) {
            if original.contains("attn.in_proj") && !name.is_empty() {
                let mut third = shape;
                third[0] /= 3;
                let third = tensor(&name, &third);
                let above = single.remove(&original);
                let joined = above.map_or(third.clone(), |above| Tensor::cat(&[&above, &third], 0).unwrap());
                single.insert(original, joined);
                folder.insert(name, third);
            } else if original.ends_with("text_projection") && !name.is_empty() {
                let turned = tensor(&name, &[shape[1], shape[0]]);
                single.insert(original, turned.t().unwrap().contiguous().unwrap());
                folder.insert(name, turned);
            } else {
                let values = tensor(&name, &shape);
                single.insert(original, values.clone());
                if !name.is_empty() {
                    folder.insert(name, values);
                }
            }
        }
        if !folder.is_empty() {
            folders.insert(part, folder);
        }
    }
    (folders, single)
}

/// A diffusers folder in memory, with the configurations of the table and `more` files.
fn folder(
    table: &Value,
    network: &str,
    parts: BTreeMap<&'static str, Tensors>,
    more: &[(&str, Value)],
) -> Checkpoint {
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    for (part, tensors) in parts {
        let weights = if part.starts_with("text") {
            "model"
        } else {
            "diffusion_pytorch_model"
        };
        let bytes = safetensors::serialize(tensors, None).unwrap();
        files.insert(format!("{part}/{weights}.safetensors"), bytes);
        let config = table[network]["config"][part].to_string().into_bytes();
        files.insert(format!("{part}/config.json"), config);
    }
    for (path, value) in more {
        files.insert((*path).to_owned(), value.to_string().into_bytes());
    }
    Checkpoint::in_memory(network, move |path| {
        let shared = path.replace("tokenizer_2/", "tokenizer/");
        let tokenizer = || pentimento_demo_model::read(&shared)?.ok();
        let found = files.get(path).cloned();
        found.or_else(|| shared.starts_with("tokenizer/").then(tokenizer).flatten())
    })
}

fn picture(model: &StableDiffusion) -> RgbImage {
    let size = Size {
        width: 48,
        height: 40,
    };
    let pixels = (0..size.pixels() * 3).map(|i| u8::try_from(i * 7 % 251).unwrap());
    let init = RgbImage::new(size, pixels.collect()).unwrap();
    let recipe = Recipe {
        prompt: "a red house in the snow".to_owned(),
        guidance_scale: 3.0,
        steps: 3,
        strength: 0.7,
        ..request(SchedulerKind::EulerDiscrete)
    };
    let mut state = model.prepare(&recipe, &init).unwrap().remove(0);
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

fn same_picture(network: &str, more: &[(&str, Value)]) {
    let table = fs_err::read(golden_dir().join("single/names.json")).unwrap();
    let table: Value = serde_json::from_slice(&table).unwrap();
    let (parts, single) = both_layouts(&table, network);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("any-name.safetensors");
    fs_err::write(&path, safetensors::serialize(single, None).unwrap()).unwrap();
    let folder = folder(&table, network, parts, more);
    let folder =
        StableDiffusion::from_checkpoint(network, folder, &pentimento_pipeline::Device::Cpu).unwrap();
    let expected = picture(&folder);
    assert!(
        expected
            .pixels()
            .iter()
            .any(|level| *level != expected.pixels()[0])
    );
    assert_eq!(picture(&load(&path)), expected, "{network}");
}

fn load(path: &Path) -> StableDiffusion {
    let entry = ModelEntry::new("single", ModelKind::Checkpoint, Source::Path(path.to_owned()));
    StableDiffusion::load_on_cpu(&ResolvedModels::checkpoint(Arc::new(entry))).unwrap()
}

fn scheduler(class: &str, more: Value) -> Value {
    let mut config = json!({
        "_class_name": class, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "clip_sample": false,
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn stable_diffusion_2_in_one_file() {
    let scheduler = scheduler("DDIMScheduler", json!({"prediction_type": "v_prediction"}));
    same_picture(
        "sd2-tiny",
        &[
            ("scheduler/scheduler_config.json", scheduler),
            ("tokenizer/special_tokens_map.json", json!({"pad_token": "!"})),
        ],
    );
}

#[test]
fn sdxl_in_one_file() {
    let scheduler = scheduler("EulerDiscreteScheduler", json!({"timestep_spacing": "leading"}));
    same_picture(
        "sdxl-tiny",
        &[
            ("scheduler/scheduler_config.json", scheduler),
            ("tokenizer_2/special_tokens_map.json", json!({"pad_token": "!"})),
            ("model_index.json", json!({"force_zeros_for_empty_prompt": true})),
        ],
    );
}
