//! Catalogue entries → the components of a model → the model put together.

mod assemble;
mod beside;
mod device_bytes;
mod family;
mod ip_adapter;
mod lone_vae;
mod lora_set;
mod open;
mod patched;
mod wanted_device;

use std::sync::Arc;

use candle_core::Device as HostDevice;
use pentimento_catalog::{BaseModel, ModelEntry, Prediction, SchedulerSettings, Source, TimestepSpacing};
use pentimento_models::{
    ClipText, ClipTextConfig, ClipTokenizer, Device, LayerSource, ModelError, UNet, UNetConfig, Vae,
    VaeConfig,
};
use pentimento_schedulers::SchedulerConfig;
use pentimento_weights::{Checkpoint, Dtypes, FileIdentity, FolderStamp, ReadProgress, WeightsError};

use self::family::Family;
use self::ip_adapter::AdapterSource;
use crate::component::{Component, ComponentKey, ComponentRole, PatchSet};
use crate::text_encoder::TextEncoder;
use crate::{PipelineError, ResolvedModels};

pub(crate) use self::open::embedded_demo;

/// Weights stay as the files have them; the arithmetic is f32.
const DTYPES: Dtypes = Dtypes::Stored;
/// Where files are read to, whatever device the layers are made for.
const HOST: HostDevice = HostDevice::Cpu;
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// The published folders have them; a folder without them gets SD 1.x's own special tokens.
const TOKENIZER_SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// Where the components of one model come from: they can be told apart, read one by one, and put together.
#[derive(Debug)]
pub struct ModelSource {
    name: String,
    checkpoint: Checkpoint,
    /// In place of the checkpoint's own.
    vae: Option<LoneVae>,
    ip_adapter: Option<AdapterSource>,
    device: Device,
    progress: ReadProgress,
    /// As the catalogue says.
    base: Option<BaseModel>,
    /// How the entries want it to be run.
    scheduler: SchedulerSettings,
    prediction: Option<Prediction>,
    loras: Vec<(Arc<ModelEntry>, f64)>,
    lcm_loras: Option<Vec<Arc<ModelEntry>>>,
}

/// A VAE that the recipe names.
#[derive(Debug)]
struct LoneVae {
    /// Checkpoint and VAE, for errors.
    name: String,
    files: Checkpoint,
}

impl ModelSource {
    /// Finds the files of what the names of a recipe stand for, to compute on `device` in the numbers that the checkpoint's entry
    /// asks for. No weights are read yet.
    ///
    /// # Errors
    /// When a source is of a kind that this version cannot read, or not there.
    pub fn open(models: &ResolvedModels, device: &Device) -> Result<Self, PipelineError> {
        let checkpoint = open::checkpoint(&models.checkpoint)?;
        let vae = match &models.vae {
            Some(vae) => Some(LoneVae {
                name: format!("{}` with the VAE `{}", models.checkpoint.name, vae.name),
                files: open::vae(vae)?,
            }),
            None => None,
        };
        Ok(Self {
            ip_adapter: models.ip_adapter.as_ref().map(AdapterSource::new).transpose()?,
            vae,
            base: models.checkpoint.base,
            scheduler: models.scheduler_settings(),
            prediction: models.checkpoint.prediction,
            loras: models.loras.clone(),
            lcm_loras: models.lcm_loras.clone(),
            ..Self::new(
                &models.checkpoint.name,
                checkpoint,
                &Self::device_of(&models.checkpoint, device),
            )
        })
    }

    /// Counts what is read from disk in `progress`.
    #[must_use]
    pub fn counting(self, progress: &ReadProgress) -> Self {
        Self {
            checkpoint: self.checkpoint.counting(progress),
            progress: progress.clone(),
            ip_adapter: self.ip_adapter.map(|source| source.counting(progress)),
            vae: self.vae.map(|vae| LoneVae {
                files: vae.files.counting(progress),
                ..vae
            }),
            ..self
        }
    }

    /// The files of these models as they are now, so that what cannot be loaded is not tried again before they change.
    #[must_use]
    pub fn stamps(models: &ResolvedModels) -> Vec<FolderStamp> {
        let places = models.ip_adapter.iter().flat_map(ip_adapter::encoder_places);
        let places = places.map(|place| FolderStamp::of(&place));
        models.entries().map(stamp).chain(places).collect()
    }

    /// A checkpoint that is open already, under the name it is known by.
    #[must_use]
    pub fn new(name: &str, checkpoint: Checkpoint, device: &Device) -> Self {
        Self {
            name: name.to_owned(),
            checkpoint,
            vae: None,
            ip_adapter: None,
            device: device.clone(),
            progress: ReadProgress::default(),
            base: None,
            scheduler: SchedulerSettings::default(),
            prediction: None,
            loras: Vec::new(),
            lcm_loras: None,
        }
    }

    /// The key of each component that the model has, as the files are now, in the order in which they are to be read.
    ///
    /// # Errors
    /// When it is of a family that this version does not run, files of a component are missing or cannot be looked at, or a LoRA
    /// does not fit the checkpoint.
    pub fn keys(&self) -> Result<Vec<ComponentKey>, PipelineError> {
        let roles = self.family()?.roles();
        let loras = self.open_loras()?;
        let key = |role: &ComponentRole| self.key(*role, loras.patches(*role, &self.device)?);
        // Small beside the UNet, before which it is found that they do not fit.
        let beside = ComponentRole::OF_IP_ADAPTER.iter();
        let beside = beside.filter(|_| self.ip_adapter.is_some());
        beside.chain(roles).map(key).collect()
    }

    fn key(&self, role: ComponentRole, patches: PatchSet) -> Result<ComponentKey, PipelineError> {
        Ok(ComponentKey {
            role,
            files: self.identity(role)?,
            patches,
            dtypes: DTYPES,
            device: self.device.location(),
        })
    }

    fn identity(&self, role: ComponentRole) -> Result<FileIdentity, PipelineError> {
        let folder = role.folder();
        let wrap = |error| self.weights_error(error);
        let inside = |file: &str| format!("{folder}/{file}");
        if matches!(role, ComponentRole::Tokenizer | ComponentRole::Tokenizer2) {
            let ([first, second], large) = (TOKENIZER_SETTINGS.map(inside), [VOCABULARY, MERGES].map(inside));
            let large = [large[0].as_str(), large[1].as_str()];
            let identity = self.checkpoint.identity(folder, &[&first, &second], &large);
            return identity.map_err(wrap);
        }
        if role == ComponentRole::Vae && self.vae.is_some() {
            return self.lone_vae_identity();
        }
        if role == ComponentRole::IpAdapter {
            return self.adapter_identity();
        }
        if role == ComponentRole::ImageEncoder {
            return self.image_encoder_identity();
        }
        self.checkpoint
            .component_identity(folder, &[&inside("config.json")])
            .map_err(wrap)
    }

    /// Reads one component. The number is what it takes in memory beside its base, in bytes, about. `base` is the component
    /// of [`ComponentKey::base`].
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn read(
        &self,
        key: &ComponentKey,
        base: Option<&Component>,
    ) -> Result<(Component, u64), PipelineError> {
        let role = key.role();
        if let Some(base) = base {
            return self.patched(role, base);
        }
        let is_merged = !key.patches.merged.is_empty();
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
                let text = self.network((role, is_merged), |weights| ClipText::new(&config, weights))?;
                let text = TextEncoder::new(text);
                let bytes = text.size_bytes();
                Ok((Component::TextEncoder(Arc::new(text)), bytes))
            }
            ComponentRole::TextEncoder2 => {
                let config: ClipTextConfig = self.config(role)?;
                let text = self.network((role, is_merged), |weights| {
                    ClipText::with_projection(&config, weights)
                })?;
                let text = TextEncoder::new(text);
                let bytes = text.size_bytes();
                Ok((Component::TextEncoder2(Arc::new(text)), bytes))
            }
            ComponentRole::UNet => {
                let config = self.unet_config()?;
                let unet = self.network((role, is_merged), |weights| UNet::new(&config, weights))?;
                let bytes = unet.size_bytes();
                Ok((Component::UNet(Arc::new(unet)), bytes))
            }
            ComponentRole::Vae => {
                let vae = match &self.vae {
                    Some(lone) => self.lone_vae(key, lone)?,
                    None => {
                        let config: VaeConfig = self.config(role)?;
                        let device = self.vae_device(key, &config)?;
                        self.network_on(&device, (role, is_merged), |weights| Vae::new(&config, weights))?
                    }
                };
                let bytes = vae.size_bytes();
                Ok((Component::Vae(Arc::new(vae)), bytes))
            }
            ComponentRole::IpAdapter => {
                let adapter = self.ip_adapter()?;
                let bytes = adapter.size_bytes();
                Ok((Component::IpAdapter(Arc::new(adapter)), bytes))
            }
            ComponentRole::ImageEncoder => {
                let encoder = self.image_encoder()?;
                let bytes = encoder.size_bytes();
                Ok((Component::ImageEncoder(Arc::new(encoder)), bytes))
            }
            ComponentRole::PromptEnhancer => {
                Err(self.mismatch("a prompt enhancer is no part of a checkpoint"))
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

    /// Where a VAE of this configuration computes: in f32 where its key says so, since it has left the range of f16 before. diffusers'
    /// pipelines of SDXL run one in f32 that asks for it, whose activations would leave the range of f16; those of Stable
    /// Diffusion 1 and 2 do not look at it (`pipeline_stable_diffusion_xl_img2img.py`, `upcast_vae`).
    fn vae_device(&self, key: &ComponentKey, config: &VaeConfig) -> Result<Device, PipelineError> {
        let in_f32 = self.device.in_f32();
        if key.device == in_f32.location() {
            return Ok(in_f32);
        }
        Ok(match self.family()? {
            Family::TwoEncoders { .. } if config.force_upcast => self.device.in_f32(),
            Family::TwoEncoders { .. } | Family::OneEncoder => self.device.clone(),
        })
    }

    fn network<T>(
        &self,
        role: (ComponentRole, bool),
        build: impl FnOnce(LayerSource<'_>) -> Result<T, ModelError>,
    ) -> Result<T, PipelineError> {
        self.network_on(&self.device, role, build)
    }

    fn network_on<T>(
        &self,
        device: &Device,
        (role, is_merged): (ComponentRole, bool),
        build: impl FnOnce(LayerSource<'_>) -> Result<T, ModelError>,
    ) -> Result<T, PipelineError> {
        let wrap = |error| self.weights_error(error);
        let weights = self.checkpoint.component(role.folder(), DTYPES, &HOST);
        let weights = weights.map_err(wrap)?;
        let network = if is_merged {
            self.with_merged((role, device), weights.var_builder(), build)?
        } else {
            build(LayerSource::new(weights.var_builder(), device))
        };
        let network = network.map_err(|error| match weights.take_fault() {
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

    /// How the checkpoint wants to be run. The catalogue has the last word, about what the UNet predicts, too.
    pub(crate) fn scheduler_config(&self) -> Result<SchedulerConfig, PipelineError> {
        let file = self.checkpoint.read("scheduler/scheduler_config.json");
        let file = file.map_err(|error| self.weights_error(error))?;
        let config = SchedulerConfig::from_json(&file).map_err(|source| PipelineError::SchedulerConfig {
            name: self.name.clone(),
            source,
        })?;
        let SchedulerSettings {
            kind,
            spacing,
            timesteps,
        } = &self.scheduler;
        let config = config.adjusted(*kind, spacing.map(TimestepSpacing::as_str), timesteps.as_deref());
        Ok(match self.prediction {
            Some(prediction) => config.predicting(prediction.as_str()),
            None => config,
        })
    }

    fn weights_error(&self, source: WeightsError) -> PipelineError {
        PipelineError::Weights {
            name: self.name.clone(),
            source: Box::new(source),
        }
    }

    fn part_error(&self, source: ModelError) -> PipelineError {
        PipelineError::Part {
            name: self.name.clone(),
            source: Box::new(source),
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
