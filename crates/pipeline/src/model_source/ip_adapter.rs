//! An IP-Adapter beside a checkpoint, and the image encoder that sees pictures for it.
//!
//! Neither changes the checkpoint: both are components of their own, which models of one base share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{
    ClipVision, ClipVisionConfig, Device, ImageProjectionConfig, IpAdapter, IpAdapterConfig, LayerSource,
    ModelError,
};
use pentimento_types::describe_chain;
use pentimento_weights::{
    Checkpoint, FileIdentity, IpAdapterAbout, IpAdapterFile, IpAdapterKind, ReadProgress, WeightsError,
};

use super::{DTYPES, HOST, ModelSource};
use crate::{IpAdapterEntries, PipelineError};

const ENCODER: &str = "image_encoder";
const CONFIG: &str = "image_encoder/config.json";

/// The files of an adapter and where its encoder may be.
#[derive(Debug)]
pub(super) struct AdapterSource {
    name: String,
    path: PathBuf,
    /// As the entry names it.
    encoder: Option<Arc<ModelEntry>>,
    progress: ReadProgress,
}

/// The files of an image encoder.
#[derive(Debug)]
struct Encoder {
    files: Checkpoint,
    /// What errors are shown without.
    path: PathBuf,
}

/// Where an encoder may lie that no entry names, seen from the adapter's folder: the published repository has one in each of
/// its folders, and some adapters of one folder want the other's.
const BESIDE: [&str; 3] = [ENCODER, "../models/image_encoder", "../sdxl_models/image_encoder"];

/// The folders in which an encoder is looked for.
pub(super) fn encoder_places(entries: &IpAdapterEntries) -> Vec<PathBuf> {
    let Source::Path(path) = &entries.adapter.source else {
        return Vec::new();
    };
    let places = BESIDE.iter().filter(|_| entries.image_encoder.is_none());
    let folder = path.parent().unwrap_or(Path::new("."));
    places.map(|place| folder.join(place)).collect()
}

impl AdapterSource {
    /// # Errors
    /// When the source is none that is on this machine.
    pub(super) fn new(entries: &IpAdapterEntries) -> Result<Self, PipelineError> {
        Ok(Self {
            name: entries.adapter.name.clone(),
            path: local(&entries.adapter)?.to_owned(),
            encoder: entries.image_encoder.clone(),
            progress: ReadProgress::default(),
        })
    }

    pub(super) fn counting(self, progress: &ReadProgress) -> Self {
        Self {
            progress: progress.clone(),
            ..self
        }
    }

    fn open(&self) -> Result<IpAdapterFile, PipelineError> {
        IpAdapterFile::open(&self.path, &self.progress).map_err(|error| self.error(error))
    }

    fn error(&self, source: WeightsError) -> PipelineError {
        self.error_below(self.path.parent().unwrap_or(&self.path), source)
    }

    /// Of a file in this folder.
    fn error_below(&self, folder: &Path, source: WeightsError) -> PipelineError {
        PipelineError::IpAdapter {
            name: self.name.clone(),
            path: folder.display().to_string(),
            source: Box::new(source),
        }
    }

    fn unfit(&self, detail: String) -> PipelineError {
        PipelineError::IpAdapterUnfit {
            name: self.name.clone(),
            detail,
        }
    }

    /// The encoder: as the entry names it, or the first beside the file that is as wide as the adapter wants it.
    fn encoder(&self, about: &IpAdapterAbout) -> Result<Encoder, PipelineError> {
        if let Some(entry) = &self.encoder {
            let path = local(entry)?;
            let found = self.opened_encoder(path, path, entry.variant.as_deref())?;
            return match mismatch(about, &self.encoder_config(&found)?) {
                None => Ok(found),
                Some(detail) => Err(self.unfit(detail)),
            };
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut closest = None;
        for place in BESIDE.map(|place| folder.join(place)) {
            if !place.join("config.json").is_file() {
                continue;
            }
            let found = self.opened_encoder(&place, folder, None)?;
            match mismatch(about, &self.encoder_config(&found)?) {
                None => return Ok(found),
                Some(detail) => closest = closest.or(Some(detail)),
            }
        }
        Err(match closest {
            Some(detail) => self.unfit(detail),
            None => self.error(WeightsError::Missing {
                model: self.path.display().to_string(),
                wanted: "image encoder".to_owned(),
                hint: " beside it; it is looked for as `image_encoder/`, and in `../models` and `../sdxl_models`, unless its \
                       entry names one"
                    .to_owned(),
            }),
        })
    }

    /// Errors name files by their paths in `folder`.
    fn opened_encoder(
        &self,
        path: &Path,
        folder: &Path,
        variant: Option<&str>,
    ) -> Result<Encoder, PipelineError> {
        let files = Checkpoint::image_encoder(path).map_err(|error| self.error_below(folder, error))?;
        Ok(Encoder {
            files: files.preferring(variant).counting(&self.progress),
            path: folder.to_owned(),
        })
    }

    fn encoder_config(&self, encoder: &Encoder) -> Result<ClipVisionConfig, PipelineError> {
        let config = encoder.files.json(CONFIG);
        config.map_err(|error| self.error_below(&encoder.path, error))
    }
}

/// What of an encoder is not as an adapter wants it.
fn mismatch(about: &IpAdapterAbout, encoder: &ClipVisionConfig) -> Option<String> {
    let (what, wanted, found) = match about.kind {
        IpAdapterKind::Projection { embedding } => ("embeddings", embedding, encoder.projection_dim),
        IpAdapterKind::Resampler { states, .. } => ("states", states, encoder.hidden_size),
    };
    (wanted != found)
        .then(|| format!("it takes {what} of {wanted} numbers, and its image encoder gives {found}"))
}

fn config_of(about: &IpAdapterAbout) -> IpAdapterConfig {
    let projection = match about.kind {
        IpAdapterKind::Projection { embedding } => ImageProjectionConfig::Linear { embedding },
        IpAdapterKind::Resampler {
            states,
            hidden,
            heads,
            depth,
            inner,
        } => ImageProjectionConfig::Resampler {
            states,
            hidden,
            heads,
            depth,
            inner,
        },
    };
    IpAdapterConfig {
        tokens: about.tokens,
        width: about.width,
        projection,
    }
}

/// Where the files of an entry are.
fn local(entry: &ModelEntry) -> Result<&Path, PipelineError> {
    match &entry.source {
        Source::Path(path) => Ok(path),
        Source::Embedded(_) | Source::HuggingFace { .. } | Source::Https(_) => {
            Err(PipelineError::UnsupportedSource {
                name: entry.name.clone(),
                reason: "an IP-Adapter and its image encoder are read from local files".to_owned(),
            })
        }
    }
}

impl ModelSource {
    fn adapter_source(&self) -> Result<&AdapterSource, PipelineError> {
        let source = self.ip_adapter.as_ref();
        source.ok_or_else(|| self.mismatch("no IP-Adapter is named"))
    }

    /// Looks whether the adapter, if there is one, is for this checkpoint and its encoder is there: names, shapes and small
    /// files.
    ///
    /// # Errors
    /// [`PipelineError::IpAdapterUnfit`] and [`PipelineError::IpAdapter`]; others when a file of the checkpoint cannot be read.
    pub(super) fn check_ip_adapter(&self) -> Result<(), PipelineError> {
        let Some(source) = &self.ip_adapter else {
            return Ok(());
        };
        let file = source.open()?;
        self.check_layers(source, file.about())?;
        source.encoder(file.about()).map(drop)
    }

    fn check_layers(&self, source: &AdapterSource, about: &IpAdapterAbout) -> Result<(), PipelineError> {
        let unet = self.unet_config()?;
        let named = |width: usize| match width {
            768 => " (Stable Diffusion 1)",
            1024 => " (Stable Diffusion 2)",
            2048 => " (Stable Diffusion XL)",
            _ => "",
        };
        let (found, expected) = (about.width, unet.cross_attention_dim);
        if found != expected {
            return Err(source.unfit(format!(
                "it is for text states of {found} numbers{}, and the checkpoint's have {expected}{}",
                named(found),
                named(expected)
            )));
        }
        let wanted = unet.ip_adapter_layers();
        if wanted.len() != about.layers.len() {
            return Err(source.unfit(format!(
                "it has {} layers, and the checkpoint's UNet has {} cross-attentions",
                about.layers.len(),
                wanted.len()
            )));
        }
        let other = wanted
            .iter()
            .find(|(number, width)| about.layers.get(number) != Some(width));
        match other {
            None => Ok(()),
            Some((number, width)) => Err(source.unfit(format!(
                "its layer {number} is not {width} wide, as the checkpoint's UNet wants it"
            ))),
        }
    }

    /// Which bytes the adapter is made of, and for UNets of which shape.
    pub(super) fn adapter_identity(&self) -> Result<FileIdentity, PipelineError> {
        let source = self.adapter_source()?;
        let file = source.open()?;
        self.check_layers(source, file.about())?;
        let identity = file.identity().map_err(|error| source.error(error))?;
        let layers = self.unet_config()?.ip_adapter_layers();
        Ok(identity.with_setting("layers", &format!("{layers:?}")))
    }

    /// Which bytes its encoder is made of.
    pub(super) fn image_encoder_identity(&self) -> Result<FileIdentity, PipelineError> {
        let source = self.adapter_source()?;
        let encoder = source.encoder(source.open()?.about())?;
        let identity = encoder.files.component_identity(ENCODER, &[CONFIG]);
        identity.map_err(|error| source.error_below(&encoder.path, error))
    }

    /// Reads the adapter.
    pub(super) fn ip_adapter(&self) -> Result<IpAdapter, PipelineError> {
        let source = self.adapter_source()?;
        let file = source.open()?;
        let config = config_of(file.about());
        let unet = self.unet_config()?;
        let weights = file.into_component(DTYPES, &HOST);
        let folder = source.path.parent().unwrap_or(&source.path);
        source.built((folder, &self.device), weights, |layers| {
            IpAdapter::new(&config, &unet, layers)
        })
    }

    /// Reads its encoder.
    pub(super) fn image_encoder(&self) -> Result<ClipVision, PipelineError> {
        let source = self.adapter_source()?;
        let encoder = source.encoder(source.open()?.about())?;
        let config = source.encoder_config(&encoder)?;
        let weights = encoder.files.component(ENCODER, DTYPES, &HOST);
        source.built((&encoder.path, &self.device), weights, |layers| {
            ClipVision::new(&config, layers)
        })
    }
}

impl AdapterSource {
    /// Builds a network of all of `weights`, which are in `folder`, on a device, with errors that name the adapter.
    fn built<T>(
        &self,
        (folder, device): (&Path, &Device),
        weights: Result<pentimento_weights::Component, WeightsError>,
        build: impl FnOnce(LayerSource<'static>) -> Result<T, ModelError>,
    ) -> Result<T, PipelineError> {
        let wrap = |error| self.error_below(folder, error);
        let weights = weights.map_err(wrap)?;
        let layers = LayerSource::new(weights.var_builder(), device);
        let network = build(layers).map_err(|source| match weights.take_fault() {
            Some(fault) => wrap(fault),
            None => self.unfit(describe_chain(&source)),
        })?;
        weights.finish().map_err(wrap)?;
        Ok(network)
    }
}
