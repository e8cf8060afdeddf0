//! Checkpoints in one file, in the layout of the original repositories (CompVis, Stability): what the file holds is found
//! from its tensors, and each component is read under the names that diffusers gives it.
//!
//! The names follow diffusers' `loaders/single_file_utils.py`. What the file does not hold (tokenizer, scheduler, head
//! counts, the VAE's factor) has the value that its base is published with.

mod base;
mod open_clip;
mod settings;
mod text;
mod unet;
mod vae;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use self::base::Base;
use self::open_clip::Use;
pub use self::settings::scheduler_config;
use crate::container::{StoredTensor, TensorFile, below};
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
/// The text encoder of Stable Diffusion 1.x, and the first one of SDXL.
const CLIP: &str = "cond_stage_model.transformer.";
const CLIP_OF_SDXL: &str = "conditioner.embedders.0.transformer.";
/// The text encoder of Stable Diffusion 2, and the second one of SDXL.
const OPEN_CLIP: &str = "cond_stage_model.model.";
const OPEN_CLIP_OF_SDXL: &str = "conditioner.embedders.1.model.";

/// The files of a diffusers folder that [`SingleFile::read`] may answer for.
const ANSWERED: [&str; 8] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer_2/special_tokens_map.json",
];

impl SingleFile {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            opened: OnceLock::new(),
        }
    }

    /// Whether [`Self::read`] answers for this file of a diffusers folder. False where the file is no checkpoint, which is said
    /// when something of it is read.
    pub(crate) fn has(&self, path: &str, progress: &ReadProgress) -> bool {
        self.read(path, progress).is_ok_and(|answer| answer.is_some())
    }

    /// A configuration, as a diffusers folder has it; None for other files. What is read from disk is counted in `progress`.
    ///
    /// # Errors
    /// When the file cannot be read, or is something else, which the error names as far as the tensors tell.
    pub(crate) fn read(&self, path: &str, progress: &ReadProgress) -> Result<Option<Vec<u8>>, WeightsError> {
        if !ANSWERED.contains(&path) {
            return Ok(None);
        }
        let config = self.tensors(progress)?.config(path);
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

/// The tensors of a checkpoint of Stable Diffusion.
#[derive(Debug)]
pub(crate) struct Tensors {
    file: TensorFile,
    base: Base,
}

impl Tensors {
    /// Looks whether a file is such a checkpoint.
    ///
    /// # Errors
    /// What it seems to be instead.
    pub(crate) fn of(file: TensorFile) -> Result<Self, WeightsError> {
        match base::of(file.tensors()) {
            Ok(base) => Ok(Self { file, base }),
            Err(detail) => Err(WeightsError::NotAModel {
                file: file.name().to_owned(),
                detail: detail.to_owned(),
            }),
        }
    }

    /// A file of the diffusers folder: the configuration of a network, found from its shapes, or what the base is published
    /// with.
    pub(crate) fn config(&self, path: &str) -> Option<Value> {
        let (base, unet) = (self.base, self.part(UNET));
        match (path, base) {
            ("unet/config.json", _) => {
                let pooled = self.part(OPEN_CLIP_OF_SDXL).size("text_projection", 1);
                unet::config(&unet, base, pooled)
            }
            ("vae/config.json", _) => vae::config(&self.part(VAE), base.scaling_factor()),
            ("text_encoder/config.json", Base::Sd1) => text::config(&self.part(CLIP)),
            ("text_encoder/config.json", Base::Sd2) => {
                open_clip::config(&self.part(OPEN_CLIP), Use::LastButOne)
            }
            ("text_encoder/config.json", Base::Sdxl) => text::config(&self.part(CLIP_OF_SDXL)),
            ("text_encoder_2/config.json", Base::Sdxl) => {
                open_clip::config(&self.part(OPEN_CLIP_OF_SDXL), Use::Whole)
            }
            ("scheduler/scheduler_config.json", _) => {
                let has = |name: &str| self.file.tensors().contains_key(name);
                Some(settings::of_scheduler(base, &unet, has))
            }
            ("model_index.json", _) => Some(settings::model_index(base)),
            ("tokenizer/special_tokens_map.json", Base::Sd2)
            | ("tokenizer_2/special_tokens_map.json", Base::Sdxl) => Some(settings::padded_by_zero()),
            _ => None,
        }
    }

    /// The weights of a component under the names that diffusers gives them, whose reads are counted in `progress`.
    pub(crate) fn component(&self, name: &str, progress: &ReadProgress) -> TensorFile {
        let tensors = match (name, self.base) {
            ("unet", _) => unet::renamed(&self.part(UNET)),
            ("vae", _) => vae::renamed(&self.part(VAE)),
            ("text_encoder", Base::Sd1) => text::renamed(&self.part(CLIP)),
            ("text_encoder", Base::Sd2) => open_clip::renamed(&self.part(OPEN_CLIP), Use::LastButOne),
            ("text_encoder", Base::Sdxl) => text::renamed(&self.part(CLIP_OF_SDXL)),
            ("text_encoder_2", Base::Sdxl) => open_clip::renamed(&self.part(OPEN_CLIP_OF_SDXL), Use::Whole),
            _ => Renamed::new(),
        };
        self.file.with_tensors(tensors, progress)
    }

    /// The tensors below a prefix, without it.
    fn part(&self, prefix: &str) -> Part<'_> {
        Part(below(self.file.tensors(), prefix).collect())
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
    let mut config = vae::config(&part, Base::Sd1.scaling_factor())?;
    // Which base it was made for is not in the file.
    config.as_object_mut()?.remove("scaling_factor");
    Some((config, vae::renamed(&part)))
}

#[cfg(test)]
mod tests;
