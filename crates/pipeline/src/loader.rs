//! Catalogue entry → its components → an assembled checkpoint: a diffusers folder on disk, or the one inside the binary.

use std::sync::Arc;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{
    ClipText, ClipTextConfig, ClipTokenizer, ModelError, UNet, UNetConfig, Vae, VaeConfig,
};
use pentimento_schedulers::SchedulerConfig;
use pentimento_weights::{Checkpoint, Dtypes, FileIdentity, FolderStamp, ReadProgress, WeightsError};

use crate::component::{Component, ComponentKey, ComponentRole, PatchSet};
use crate::{PipelineError, StableDiffusion};

/// Weights stay as the files have them; the arithmetic is f32.
const DTYPES: Dtypes = Dtypes::Stored;
const VOCABULARY: &str = "tokenizer/vocab.json";
const MERGES: &str = "tokenizer/merges.txt";
/// The published SD 1.x folders have it; a folder without it gets SD 1.x's own special tokens.
const TOKENIZER_SETTINGS: &str = "tokenizer/tokenizer_config.json";

/// A checkpoint whose components can be told apart, read one by one, and put together.
#[derive(Debug)]
pub struct CheckpointSource {
    name: String,
    checkpoint: Checkpoint,
    device: Device,
}

impl CheckpointSource {
    /// Finds the entry's files. No weights are read yet.
    ///
    /// # Errors
    /// When the source is of a kind that this version cannot read, or not there.
    pub fn open(entry: &ModelEntry, device: &Device) -> Result<Self, PipelineError> {
        Ok(Self::new(&entry.name, open(entry)?, device))
    }

    /// Counts what is read from disk in `progress`.
    #[must_use]
    pub fn counting(self, progress: &ReadProgress) -> Self {
        Self {
            checkpoint: self.checkpoint.counting(progress),
            ..self
        }
    }

    /// The files of an entry as they are now, so that one that cannot be loaded is not tried again before they change.
    #[must_use]
    pub fn stamp(entry: &ModelEntry) -> FolderStamp {
        match &entry.source {
            Source::Path(path) => FolderStamp::of(path),
            Source::Embedded(_) | Source::HuggingFace { .. } | Source::Https(_) => FolderStamp::default(),
        }
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

    /// The key of each component, as the files are now, in the order of [`ComponentRole::ALL`].
    ///
    /// # Errors
    /// When files of a component are missing or cannot be looked at.
    pub fn keys(&self) -> Result<[ComponentKey; 4], PipelineError> {
        let [tokenizer, text_encoder, vae, unet] = ComponentRole::ALL.map(|role| self.key(role));
        Ok([tokenizer?, text_encoder?, vae?, unet?])
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
        if role == ComponentRole::Tokenizer {
            let large = [VOCABULARY, MERGES];
            return self.checkpoint.identity(folder, &[TOKENIZER_SETTINGS], &large);
        }
        let config = format!("{folder}/config.json");
        self.checkpoint.component_identity(folder, &[&config])
    }

    /// Reads one component. The number is what it takes in memory, in bytes, about.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn read(&self, role: ComponentRole) -> Result<(Component, u64), PipelineError> {
        match role {
            ComponentRole::Tokenizer => {
                let (tokenizer, bytes) = self.tokenizer()?;
                Ok((Component::Tokenizer(Arc::new(tokenizer)), bytes))
            }
            ComponentRole::TextEncoder => {
                let config: ClipTextConfig = self.config(role)?;
                let text = self.network(role, |weights| ClipText::new(&config, weights))?;
                let bytes = text.size_bytes();
                Ok((Component::TextEncoder(Arc::new(text)), bytes))
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

    pub(crate) fn tokenizer(&self) -> Result<(ClipTokenizer, u64), PipelineError> {
        let read = |path| {
            self.checkpoint
                .read(path)
                .map_err(|error| self.weights_error(error))
        };
        let settings = self.checkpoint.has(TOKENIZER_SETTINGS);
        let settings = settings.then(|| read(TOKENIZER_SETTINGS)).transpose()?;
        let (vocabulary, merges) = (read(VOCABULARY)?, read(MERGES)?);
        let tokenizer = ClipTokenizer::from_files(&vocabulary, &merges, settings.as_deref());
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

    /// The same where it is a small file of its own, and not somewhere in a single file.
    pub(crate) fn unet_config_at_hand(&self) -> Result<Option<UNetConfig>, PipelineError> {
        if self.checkpoint.is_single_file() {
            return Ok(None);
        }
        self.unet_config().map(Some)
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

    /// Puts one component of each role together.
    ///
    /// # Errors
    /// When the scheduler's configuration is wrong, a role is missing, or the parts do not fit each other.
    pub fn assemble(
        &self,
        components: impl IntoIterator<Item = Component>,
    ) -> Result<StableDiffusion, PipelineError> {
        let scheduler_config = self.scheduler_config()?;
        let (mut tokenizer, mut text, mut unet, mut vae) = (None, None, None, None);
        for component in components {
            match component {
                Component::Tokenizer(part) => tokenizer = Some(part),
                Component::TextEncoder(part) => text = Some(part),
                Component::UNet(part) => unet = Some(part),
                Component::Vae(part) => vae = Some(part),
            }
        }
        let (Some(tokenizer), Some(text), Some(unet), Some(vae)) = (tokenizer, text, unet, vae) else {
            return Err(self.mismatch("a component was not loaded"));
        };
        let pixels_per_latent = u32::try_from(vae.config().downscale());
        let model = StableDiffusion {
            name: self.name.clone(),
            tokenizer,
            text,
            pixels_per_latent: pixels_per_latent.map_err(|_| self.mismatch("the VAE has too many levels"))?,
            unet,
            vae,
            scheduler_config,
            device: self.device.clone(),
            dtype: DType::F32,
        };
        model.check_fit()?;
        Ok(model)
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

impl StableDiffusion {
    /// Reads every component of the entry's source.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn load(entry: &ModelEntry, device: &Device) -> Result<Self, PipelineError> {
        Self::read_all(&CheckpointSource::open(entry, device)?)
    }

    /// Builds the components from an opened checkpoint folder.
    ///
    /// # Errors
    /// As [`StableDiffusion::load`].
    pub fn from_checkpoint(
        name: &str,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, PipelineError> {
        Self::read_all(&CheckpointSource::new(name, checkpoint, device))
    }

    fn read_all(source: &CheckpointSource) -> Result<Self, PipelineError> {
        let parts = ComponentRole::ALL.map(|role| Ok(source.read(role)?.0));
        source.assemble(parts.into_iter().collect::<Result<Vec<_>, PipelineError>>()?)
    }

    /// The parts of one folder must fit each other; a mixed-up folder is found here and not in a forward.
    fn check_fit(&self) -> Result<(), PipelineError> {
        let mismatch = |detail: String| PipelineError::Mismatch {
            name: self.name.clone(),
            detail,
        };
        let (text, cross) = (
            self.text.config().hidden_size,
            self.unet.config().cross_attention_dim,
        );
        if text != cross {
            return Err(mismatch(format!(
                "the text encoder is {text} wide, but the UNet's cross_attention_dim is {cross}"
            )));
        }
        let (unet, vae) = (self.unet.config().in_channels, self.vae.config().latent_channels);
        let inpainting = 2 * vae + 1;
        if unet != vae && unet != inpainting {
            return Err(mismatch(format!(
                "the UNet takes {unet} channels, but the VAE has {vae} latent channels; \
                 {vae}, or {inpainting} for inpainting, would fit"
            )));
        }
        Ok(())
    }
}

/// The model inside the binary.
pub(crate) fn embedded_demo() -> Checkpoint {
    Checkpoint::in_memory("embedded:demo", read_demo)
}

fn read_demo(path: &str) -> Option<Vec<u8>> {
    pentimento_demo_model::read(path).and_then(Result::ok)
}

/// The demo model's tokenizer is CLIP's own, which every checkpoint of Stable Diffusion has.
fn read_tokenizer(path: &str) -> Option<Vec<u8>> {
    path.starts_with("tokenizer/").then(|| read_demo(path)).flatten()
}

fn open(entry: &ModelEntry) -> Result<Checkpoint, PipelineError> {
    let unsupported = |reason: String| PipelineError::UnsupportedSource {
        name: entry.name.clone(),
        reason,
    };
    match &entry.source {
        Source::Path(path) if path.is_dir() => {
            Checkpoint::open(path).map_err(|source| PipelineError::Weights {
                name: entry.name.clone(),
                source,
            })
        }
        Source::Path(path) => Ok(Checkpoint::single_file(path, read_tokenizer)),
        Source::Embedded(name) if name == "demo" => Ok(embedded_demo()),
        Source::Embedded(name) => Err(unsupported(format!(
            "there is no embedded model `{name}`; the only one is `demo`"
        ))),
        Source::HuggingFace { .. } | Source::Https(_) => Err(unsupported(
            "downloads are not supported in this version; use a local folder".to_owned(),
        )),
    }
}
