//! Checkpoints with seeded random weights of true shapes: what they compute is noise, but how long it takes is real.
//!
//! Every tensor is asked for by the real constructors and answered from a seed, so no shape is written twice.
//! Used by `pentimento bench` and by tests that need a model and not a picture.

mod shapes;

pub use self::shapes::Shape;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use pentimento_models::{
    self as models, ClipText, ClipTextConfig, LayerSource, ModelError, UNet, UNetConfig, Vae, VaeConfig,
};
use pentimento_weights::{Checkpoint, Component, Dtypes, WeightsError};

use self::shapes::files;
use crate::{PipelineError, StableDiffusion};

/// Builds a checkpoint of the given shapes on `device`; the same seed gives the same weights everywhere.
///
/// # Errors
/// When memory for a tensor cannot be had.
pub fn stable_diffusion(
    shape: Shape,
    seed: u64,
    device: &models::Device,
) -> Result<StableDiffusion, PipelineError> {
    let name = shape.name();
    let checkpoint = Checkpoint::seeded_random(format!("seeded:{name}"), files(shape), seed);
    StableDiffusion::from_checkpoint(name, checkpoint, device)
}

/// Writes such a checkpoint to `folder`, in half precision: for what has to be read from a disk.
///
/// # Errors
/// When memory for a tensor cannot be had, or a file cannot be written.
pub fn write_checkpoint(shape: Shape, seed: u64, folder: &Path) -> Result<(), PipelineError> {
    let unwritable = |file: &Path, source| PipelineError::Weights {
        name: shape.name().to_owned(),
        source: Box::new(WeightsError::Unreadable {
            file: file.display().to_string(),
            source,
        }),
    };
    let files = files(shape);
    for (path, bytes) in &files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs_err::create_dir_all(parent).map_err(|error| unwritable(parent, error))?;
        fs_err::write(&path, bytes).map_err(|error| unwritable(&path, error))?;
    }
    let config = |path: &str| {
        let file = files.iter().find(|(name, _)| name == path);
        file.map(|(_, bytes)| bytes.as_slice()).unwrap_or_default()
    };
    let wrong = |source| PipelineError::Weights {
        name: shape.name().to_owned(),
        source: Box::new(WeightsError::Json {
            file: "config.json".to_owned(),
            source,
        }),
    };
    let unet: UNetConfig = serde_json::from_slice(config("unet/config.json")).map_err(wrong)?;
    recorded(
        seed,
        &folder.join("unet/diffusion_pytorch_model.safetensors"),
        |weights| UNet::new(&unet, weights).map(drop),
    )?;
    let vae: VaeConfig = serde_json::from_slice(config("vae/config.json")).map_err(wrong)?;
    recorded(
        seed,
        &folder.join("vae/diffusion_pytorch_model.safetensors"),
        |weights| Vae::new(&vae, weights).map(drop),
    )?;
    let text: ClipTextConfig = serde_json::from_slice(config("text_encoder/config.json")).map_err(wrong)?;
    recorded(seed, &folder.join("text_encoder/model.safetensors"), |weights| {
        ClipText::new(&text, weights).map(drop)
    })?;
    if shape.has_two_encoders() {
        let text = serde_json::from_slice(config("text_encoder_2/config.json")).map_err(wrong)?;
        recorded(
            seed,
            &folder.join("text_encoder_2/model.safetensors"),
            |weights| ClipText::with_projection(&text, weights).map(drop),
        )?;
    }
    let index = folder.join("model_index.json");
    let class = if shape.has_two_encoders() {
        "StableDiffusionXLPipeline"
    } else {
        "StableDiffusionPipeline"
    };
    fs_err::write(&index, format!("{{\"_class_name\": \"{class}\"}}"))
        .map_err(|error| unwritable(&index, error))
}

/// Which layers a seeded LoRA changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraLayers {
    /// The attentions and feed-forward layers of UNet and text encoder, as most files have it.
    Transformers,
    /// Those and the 3x3 convolutions of the UNet, as LCM-LoRAs have it.
    WithConvolutions,
}

/// Writes a LoRA of this rank for the checkpoint in the folder `checkpoint`, in half precision and PEFT's names; its changes
/// are small beside the weights.
///
/// # Errors
/// When the checkpoint cannot be read, or the file not be written.
pub fn write_lora(
    checkpoint: &Path,
    (layers, rank, seed): (LoraLayers, usize, u64),
    path: &Path,
) -> Result<(), PipelineError> {
    let wrap = |source| PipelineError::Weights {
        name: checkpoint.display().to_string(),
        source: Box::new(source),
    };
    let files = Checkpoint::open(checkpoint).map_err(wrap)?;
    // Of variance 1 / fan-in, so that the product of both is about as large as 0.3 of a weight.
    let noise = Component::seeded(seed, Dtypes::All(DType::F32), &Device::Cpu).var_builder();
    let mut tensors = HashMap::new();
    for network in ["unet", "text_encoder"] {
        let component = files.component(network, Dtypes::Stored, &Device::Cpu);
        let component = component.map_err(wrap)?;
        for (name, dims) in component.tensors() {
            let Some(layer) = name.strip_suffix(".weight") else {
                continue;
            };
            let is_wanted = match dims {
                [_, _] => name.contains("attn") || name.contains(".ff.") || name.contains(".mlp."),
                [_, _, 3, 3] => layers == LoraLayers::WithConvolutions && name.contains("resnets"),
                _ => false,
            };
            if !is_wanted {
                continue;
            }
            let mut down = dims.to_vec();
            down[0] = rank;
            let mut up = vec![1; dims.len()];
            up[..2].copy_from_slice(&[dims[0], rank]);
            for (half, shape) in [("lora_A", down), ("lora_B", up)] {
                let key = format!("{network}.{layer}.{half}.weight");
                let tensor = (noise.get(shape, &key)? * 0.3)?.to_dtype(DType::F16)?;
                tensors.insert(key, tensor);
            }
        }
    }
    Ok(candle_core::safetensors::save(&tensors, path)?)
}

/// Builds a network and saves every tensor that it asked for.
fn recorded(
    seed: u64,
    path: &Path,
    build: impl FnOnce(LayerSource<'static>) -> Result<(), ModelError>,
) -> Result<(), PipelineError> {
    let recorder = Recorder {
        weights: Component::seeded(seed, Dtypes::All(DType::F16), &Device::Cpu).var_builder(),
        asked: Arc::default(),
    };
    let asked = Arc::clone(&recorder.asked);
    let tensors = VarBuilder::from_backend(Box::new(recorder), DType::F16, Device::Cpu);
    build(LayerSource::new(tensors, &models::Device::Cpu))?;
    let tensors = asked.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(candle_core::safetensors::save(&tensors, path)?)
}

/// Passes questions on and keeps the answers.
struct Recorder {
    weights: VarBuilder<'static>,
    asked: Arc<Mutex<HashMap<String, Tensor>>>,
}

impl SimpleBackend for Recorder {
    fn get(
        &self,
        s: candle_core::Shape,
        name: &str,
        _: Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.weights.get(s, name)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("seeded weights have no shape of their own for `{name}`")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use pentimento_catalog::{ModelEntry, ModelKind, Source};

    use super::*;

    #[test]
    fn a_checkpoint_that_was_written_can_be_read() {
        for shape in [Shape::Tiny, Shape::TinySdxl] {
            let folder = tempfile::tempdir().unwrap();
            write_checkpoint(shape, 1, folder.path()).unwrap();
            let entry = ModelEntry::new(
                "written",
                ModelKind::Checkpoint,
                Source::Path(folder.path().to_owned()),
            );
            let model = StableDiffusion::load_on_cpu(&crate::ResolvedModels::checkpoint(entry.into()));
            let model = model.unwrap();
            assert_eq!(model.name(), "written");
            assert_eq!(model.second.is_some(), shape.has_two_encoders());
        }
    }
}
