//! Catalogue entries → the components of a model → the model put together.

mod assemble;
mod family;
mod open;

use std::sync::Arc;

use candle_core::Device;
use candle_nn::VarBuilder;
use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{
    ClipText, ClipTextConfig, ClipTokenizer, ModelError, UNet, UNetConfig, Vae, VaeConfig,
};
use pentimento_schedulers::SchedulerConfig;
use pentimento_weights::{Checkpoint, Dtypes, FileIdentity, FolderStamp, ReadProgress, WeightsError};

use crate::component::{Component, ComponentKey, ComponentRole, PatchSet};
use crate::{PipelineError, ResolvedModels};

pub(crate) use self::open::embedded_demo;

/// Weights stay as the files have them; the arithmetic is f32.
const DTYPES: Dtypes = Dtypes::Stored;
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// The published folders have them; a folder without them gets SD 1.x's own special tokens.
const TOKENIZER_SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// Where the components of one model come from: they can be told apart, read one by one, and put together.
#[derive(Debug)]
pub struct ModelSource {
    name: String,
    checkpoint: Checkpoint,
    device: Device,
}

impl ModelSource {
    /// Finds the files of what the names of a recipe stand for. No weights are read yet.
    ///
    /// # Errors
    /// When a source is of a kind that this version cannot read, or not there.
    pub fn open(models: &ResolvedModels, device: &Device) -> Result<Self, PipelineError> {
        let checkpoint = open::checkpoint(&models.checkpoint)?;
        Ok(Self::new(&models.checkpoint.name, checkpoint, device))
    }

    /// Counts what is read from disk in `progress`.
    #[must_use]
    pub fn counting(self, progress: &ReadProgress) -> Self {
        Self {
            checkpoint: self.checkpoint.counting(progress),
            ..self
        }
    }

    /// The files of these models as they are now, so that what cannot be loaded is not tried again before they change.
    #[must_use]
    pub fn stamps(models: &ResolvedModels) -> Vec<FolderStamp> {
        models.entries().map(stamp).collect()
    }

    /// A checkpoint that is open already, under the name it is known by.
    #[must_use]
    pub fn new(name: &str, checkpoint: Checkpoint, device: &Device) -> Self {
        Self {
            name: name.to_owned(),
            checkpoint,
            device: device.clone(),
        }
    }

    /// The key of each component that the model has, as the files are now, in the order in which they are to be read.
    ///
    /// # Errors
    /// When it is of a family that this version does not run, or files of a component are missing or cannot be looked at.
    pub fn keys(&self) -> Result<Vec<ComponentKey>, PipelineError> {
        let roles = self.family()?.roles().iter();
        roles.map(|role| self.key(*role)).collect()
    }

    fn key(&self, role: ComponentRole) -> Result<ComponentKey, PipelineError> {
        Ok(ComponentKey {
            role,
            files: self.identity(role).map_err(|error| self.weights_error(error))?,
            patches: PatchSet::default(),
            dtypes: DTYPES,
            device: self.device.location(),
        })
    }

    fn identity(&self, role: ComponentRole) -> Result<FileIdentity, WeightsError> {
        let folder = role.folder();
        let inside = |file: &str| format!("{folder}/{file}");
        if matches!(role, ComponentRole::Tokenizer | ComponentRole::Tokenizer2) {
            let ([first, second], large) = (TOKENIZER_SETTINGS.map(inside), [VOCABULARY, MERGES].map(inside));
            let large = [large[0].as_str(), large[1].as_str()];
            return self.checkpoint.identity(folder, &[&first, &second], &large);
        }
        self.checkpoint
            .component_identity(folder, &[&inside("config.json")])
    }

    /// Reads one component. The number is what it takes in memory, in bytes, about.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn read(&self, role: ComponentRole) -> Result<(Component, u64), PipelineError> {
        match role {
            ComponentRole::Tokenizer => {
                let (tokenizer, bytes) = self.tokenizer(role)?;
                Ok((Component::Tokenizer(Arc::new(tokenizer)), bytes))
            }
            ComponentRole::Tokenizer2 => {
                let (tokenizer, bytes) = self.tokenizer(role)?;
                Ok((Component::Tokenizer2(Arc::new(tokenizer)), bytes))
            }
            ComponentRole::TextEncoder => {
                let config: ClipTextConfig = self.config(role)?;
                let text = self.network(role, |weights| ClipText::new(&config, weights))?;
                let bytes = text.size_bytes();
                Ok((Component::TextEncoder(Arc::new(text)), bytes))
            }
            ComponentRole::TextEncoder2 => {
                let config: ClipTextConfig = self.config(role)?;
                let text = self.network(role, |weights| ClipText::with_projection(&config, weights))?;
                let bytes = text.size_bytes();
                Ok((Component::TextEncoder2(Arc::new(text)), bytes))
            }
            ComponentRole::UNet => {
                let config = self.unet_config()?;
                let unet = self.network(role, |weights| UNet::new(&config, weights))?;
                let bytes = unet.size_bytes();
                Ok((Component::UNet(Arc::new(unet)), bytes))
            }
            ComponentRole::Vae => {
                let config: VaeConfig = self.config(role)?;
                let vae = self.network(role, |weights| Vae::new(&config, weights))?;
                let bytes = vae.size_bytes();
                Ok((Component::Vae(Arc::new(vae)), bytes))
            }
        }
    }

    pub(crate) fn tokenizer(&self, role: ComponentRole) -> Result<(ClipTokenizer, u64), PipelineError> {
        let folder = role.folder();
        let read = |file: &str| {
            self.checkpoint
                .read(&format!("{folder}/{file}"))
                .map_err(|error| self.weights_error(error))
        };
        let has = |file: &str| self.checkpoint.has(&format!("{folder}/{file}"));
        let [settings, special] = TOKENIZER_SETTINGS.map(|file| has(file).then(|| read(file)).transpose());
        let (vocabulary, merges) = (read(VOCABULARY)?, read(MERGES)?);
        let (settings, special) = (settings?, special?);
        let tokenizer =
            ClipTokenizer::from_files(&vocabulary, &merges, settings.as_deref(), special.as_deref());
        let tokenizer = tokenizer.map_err(|error| self.part_error(error))?;
        let bytes = vocabulary.len() + merges.len();
        Ok((tokenizer, bytes as u64))
    }

    fn config<T: serde::de::DeserializeOwned>(&self, role: ComponentRole) -> Result<T, PipelineError> {
        let path = format!("{}/config.json", role.folder());
        self.checkpoint
            .json(&path)
            .map_err(|error| self.weights_error(error))
    }

    fn network<T>(
        &self,
        role: ComponentRole,
        build: impl FnOnce(VarBuilder<'static>) -> Result<T, ModelError>,
    ) -> Result<T, PipelineError> {
        let wrap = |error| self.weights_error(error);
        let weights = self.checkpoint.component(role.folder(), DTYPES, &self.device);
        let weights = weights.map_err(wrap)?;
        let network = build(weights.var_builder()).map_err(|error| match weights.take_fault() {
            Some(fault) => self.weights_error(fault),
            None => self.part_error(error),
        })?;
        weights.finish().map_err(wrap)?;
        Ok(network)
    }

    /// The shape of its UNet.
    pub(crate) fn unet_config(&self) -> Result<UNetConfig, PipelineError> {
        self.config(ComponentRole::UNet)
    }

    /// How the checkpoint wants to be run.
    pub(crate) fn scheduler_config(&self) -> Result<SchedulerConfig, PipelineError> {
        let file = self.checkpoint.read("scheduler/scheduler_config.json");
        let file = file.map_err(|error| self.weights_error(error))?;
        SchedulerConfig::from_json(&file).map_err(|source| PipelineError::SchedulerConfig {
            name: self.name.clone(),
            source,
        })
    }

    fn weights_error(&self, source: WeightsError) -> PipelineError {
        PipelineError::Weights {
            name: self.name.clone(),
            source,
        }
    }

    fn part_error(&self, source: ModelError) -> PipelineError {
        PipelineError::Part {
            name: self.name.clone(),
            source,
        }
    }

    fn mismatch(&self, detail: &str) -> PipelineError {
        PipelineError::Mismatch {
            name: self.name.clone(),
            detail: detail.to_owned(),
        }
    }
}

fn stamp(entry: &ModelEntry) -> FolderStamp {
    match &entry.source {
        Source::Path(path) => FolderStamp::of(path),
        Source::Embedded(_) | Source::HuggingFace { .. } | Source::Https(_) => FolderStamp::default(),
    }
}
