//! Tiny checkpoints of `tests/golden/models` with changes, as golden files name them.

use candle_core::{Device, Tensor};
use pentimento_pipeline::{PipelineError, StableDiffusion};
use pentimento_testkit::{Golden, golden_dir};
use pentimento_weights::Checkpoint;
use serde_json::Value;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A file of a tiny model, or of `tiny` where the model has none.
fn read(model: &str, path: &str) -> Option<Vec<u8>> {
    let models = golden_dir().join("models");
    let own = fs_err::read(models.join(model).join(path));
    own.or_else(|_| fs_err::read(models.join("tiny").join(path))).ok()
}

/// The model with `change` made to each of its files.
pub(crate) fn changed(
    model: &str,
    change: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> Result<StableDiffusion, PipelineError> {
    let name = model.to_owned();
    let files = Checkpoint::in_memory(model, move |path| Some(change(path, read(&name, path)?)));
    StableDiffusion::from_checkpoint(model, files, &pentimento_pipeline::Device::Cpu)
}

/// A configuration with these keys in it.
pub(crate) fn with_keys(bytes: &[u8], keys: &Value) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(bytes).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string().into_bytes()
}

/// The model that a golden file was made with.
pub(crate) fn model_of(golden: &Golden) -> StableDiffusion {
    let about = golden.about().clone();
    let replaced: Vec<(String, Tensor)> = golden
        .names()
        .iter()
        .filter_map(|name| {
            Some((
                name.strip_prefix("replaced.")?.to_owned(),
                golden.tensor(name).clone(),
            ))
        })
        .collect();
    let model = about["model"].as_str().unwrap().to_owned();
    let made = changed(&model, move |path, bytes| match path {
        "unet/config.json" => with_keys(&bytes, &about["unet"]),
        "vae/config.json" => with_keys(&bytes, &about["vae"]),
        UNET => {
            let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
            tensors.extend(replaced.iter().cloned());
            safetensors::serialize(tensors, None).unwrap()
        }
        _ => bytes,
    });
    made.unwrap()
}
