//! Checkpoints in one file, in the layout of the original repositories (CompVis, Stability): what the file holds is found
//! from its tensors, and each component is read under the names that diffusers gives it.
//!
//! The names follow diffusers' `loaders/single_file_utils.py`. What the file does not hold (tokenizer, scheduler, head
//! counts, the VAE's factor) has the value that its base is published with.

mod text;
mod unet;
mod vae;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::container::{StoredTensor, TensorFile};
use crate::identity::FileStamp;
use crate::{ReadProgress, WeightsError};

/// Tensors of one component by the names that diffusers gives them.
pub(crate) type Renamed = BTreeMap<String, StoredTensor>;

/// A checkpoint in one file, which is opened when something of it is asked for.
#[derive(Debug)]
pub(crate) struct SingleFile {
    path: PathBuf,
    opened: OnceLock<Tensors>,
}

/// The prefix of each part.
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
const CLIP: &str = "cond_stage_model.transformer.";

const SCHEDULER: &str = "scheduler/scheduler_config.json";
const UNET_CONFIG: &str = "unet/config.json";
const VAE_CONFIG: &str = "vae/config.json";
const TEXT_CONFIG: &str = "text_encoder/config.json";
/// What is found from the tensors.
const CONFIGURATIONS: [&str; 3] = [UNET_CONFIG, VAE_CONFIG, TEXT_CONFIG];

impl SingleFile {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            opened: OnceLock::new(),
        }
    }

    /// Whether [`Self::read`] answers for this file of a diffusers folder, where the weights are those of a checkpoint.
    pub(crate) fn has(path: &str) -> bool {
        path == SCHEDULER || CONFIGURATIONS.contains(&path)
    }

    /// A configuration, as a diffusers folder has it; None for other files. What is read from disk is counted in `progress`.
    ///
    /// # Errors
    /// When the file cannot be read, or is something else, which the error names as far as the tensors tell.
    pub(crate) fn read(&self, path: &str, progress: &ReadProgress) -> Result<Option<Vec<u8>>, WeightsError> {
        let config = if path == SCHEDULER {
            Some(scheduler_config())
        } else if CONFIGURATIONS.contains(&path) {
            self.tensors(progress)?.config(path)
        } else {
            None
        };
        Ok(config.map(|config| config.to_string().into_bytes()))
    }

    /// The weights of a component. Empty where the file has no such part.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn component(&self, name: &str, progress: &ReadProgress) -> Result<TensorFile, WeightsError> {
        Ok(self.tensors(progress)?.component(name, progress))
    }

    /// Which bytes a component is made of.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn stamp(&self, name: &str, progress: &ReadProgress) -> Result<FileStamp, WeightsError> {
        let component = self.component(name, progress)?;
        let sizes = component.tensors().values().map(StoredTensor::size_bytes);
        Ok(FileStamp::PartOfFile {
            file: Box::new(FileStamp::of(&self.path)?),
            part: name.to_owned(),
            size_bytes: sizes.sum(),
        })
    }

    fn tensors(&self, progress: &ReadProgress) -> Result<&Tensors, WeightsError> {
        if let Some(tensors) = self.opened.get() {
            return Ok(tensors);
        }
        let opened = Tensors::of(TensorFile::open(&self.path, progress)?)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

/// The tensors of a checkpoint of Stable Diffusion 1.x.
#[derive(Debug)]
pub(crate) struct Tensors(TensorFile);

impl Tensors {
    /// Looks whether a file is such a checkpoint.
    ///
    /// # Errors
    /// What it seems to be instead.
    pub(crate) fn of(file: TensorFile) -> Result<Self, WeightsError> {
        match foreign(file.tensors()) {
            None => Ok(Self(file)),
            Some(detail) => Err(WeightsError::NotAModel {
                file: file.name().to_owned(),
                detail: detail.to_owned(),
            }),
        }
    }

    /// The configuration of a network, found from its shapes.
    pub(crate) fn config(&self, path: &str) -> Option<Value> {
        match path {
            UNET_CONFIG => unet::config(&self.part(UNET)),
            VAE_CONFIG => vae::config(&self.part(VAE)),
            TEXT_CONFIG => text::config(&self.part(CLIP)),
            _ => None,
        }
    }

    /// The weights of a component under the names that diffusers gives them, whose reads are counted in `progress`.
    pub(crate) fn component(&self, name: &str, progress: &ReadProgress) -> TensorFile {
        let tensors = match name {
            "unet" => unet::renamed(&self.part(UNET)),
            "vae" => vae::renamed(&self.part(VAE)),
            "text_encoder" => text::renamed(&self.part(CLIP)),
            _ => Renamed::new(),
        };
        self.0.with_tensors(tensors, progress)
    }

    /// The tensors below a prefix, without it.
    fn part(&self, prefix: &str) -> Part<'_> {
        let tensors = self.0.tensors().range(prefix.to_owned()..);
        let inside = tensors.map_while(|(name, stored)| Some((name.strip_prefix(prefix)?, stored)));
        Part(inside.collect())
    }
}

/// The tensors of one part by their original names.
struct Part<'a>(BTreeMap<&'a str, &'a StoredTensor>);

impl Part<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.get(name).map(|stored| stored.shape.as_slice())
    }

    /// One size of a tensor.
    fn size(&self, name: &str, dimension: usize) -> Option<usize> {
        self.shape(name)?.get(dimension).copied()
    }

    /// How many blocks `<list>.<0, 1, 2 …>.` there are.
    fn count(&self, list: &str) -> usize {
        let has = |number: usize| {
            let prefix = format!("{list}.{number}.");
            let from = self.0.range(prefix.as_str()..).next();
            from.is_some_and(|(name, _)| name.starts_with(&prefix))
        };
        (0..).take_while(|number| has(*number)).count()
    }

    /// All tensors by the names that `rename` gives them; what it does not know keeps its own, so that it is missed by
    /// nobody and complained about later.
    fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Renamed {
        let named = |(name, stored): (&&str, &&StoredTensor)| {
            (
                rename(name).unwrap_or_else(|| (*name).to_owned()),
                (*stored).clone(),
            )
        };
        self.0.iter().map(named).collect()
    }
}

/// Configuration and tensors of a VAE in the original layout, alone or as a part of a checkpoint; None where there is none.
pub(crate) fn lone_vae(tensors: &BTreeMap<String, StoredTensor>) -> Option<(Value, Renamed)> {
    let inside = |prefix: &str| {
        let named = tensors
            .iter()
            .filter_map(|(name, stored)| Some((name.strip_prefix(prefix)?, stored)));
        Part(named.collect())
    };
    let part = [VAE, ""]
        .map(inside)
        .into_iter()
        .find(|part| part.count("encoder.down") > 0)?;
    let mut config = vae::config(&part)?;
    // Which base it was made for is not in the file.
    config.as_object_mut()?.remove("scaling_factor");
    Some((config, vae::renamed(&part)))
}

/// What a file without the parts of Stable Diffusion 1.x seems to be.
fn foreign(tensors: &BTreeMap<String, StoredTensor>) -> Option<&'static str> {
    let has = |prefix: &str| {
        let from = tensors.range(prefix.to_owned()..).next();
        from.is_some_and(|(name, _)| name.starts_with(prefix))
    };
    if has("conditioner.embedders.1.") {
        return Some("a checkpoint of Stable Diffusion XL, which this version does not read");
    }
    if has("conditioner.embedders.0.") {
        return Some("a refiner of Stable Diffusion XL, which this version does not read");
    }
    if has("cond_stage_model.model.") {
        return Some(
            "a checkpoint of Stable Diffusion 2, which this version reads as a diffusers folder only",
        );
    }
    if has(UNET) && has(VAE) && has(CLIP) {
        return None;
    }
    if has(UNET) {
        return Some("it has a UNet, but no text encoder and VAE beside it; a whole checkpoint is needed");
    }
    if has("double_blocks.") || has("model.diffusion_model.double_blocks.") || has("transformer_blocks.") {
        return Some("a diffusion transformer, which is no Stable Diffusion 1.x");
    }
    if has("down_blocks.") || has("conv_in.") {
        return Some("a single component of a diffusers folder; name the folder that holds all of them");
    }
    // The last two are the numbered names of 2022.
    if tensors
        .keys()
        .any(|name| name.contains("lora_") || name.contains("lokr_") || name.contains("hada_"))
        || (has("unet:0:") || has("text_encoder:0:"))
    {
        return Some("a LoRA; its entry needs `kind = \"lora\"`");
    }
    if has("encoder.down.") || has("decoder.up.") {
        return Some("a VAE; its entry needs `kind = \"vae\"`");
    }
    if tensors.contains_key("emb_params") || has("string_to_param") {
        return Some("a textual inversion; its entry needs `kind = \"embedding\"`");
    }
    Some("none of its tensors is one of a Stable Diffusion checkpoint")
}

/// `scheduler/scheduler_config.json` of Stable Diffusion 1.5, which no single file holds.
#[must_use]
pub fn scheduler_config() -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "clip_sample": false,
    })
}

#[cfg(test)]
mod tests;
