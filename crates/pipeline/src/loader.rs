//! Catalogue entry → loaded checkpoint: a diffusers folder on disk, or the one inside the binary.

use candle_core::{DType, Device};
use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{ClipText, ClipTextConfig, ClipTokenizer, UNet, UNetConfig, Vae, VaeConfig};
use pentimento_schedulers::SchedulerConfig;
use pentimento_weights::{Checkpoint, Dtypes, WeightsError};

use crate::{PipelineError, StableDiffusion};

impl StableDiffusion {
    /// Reads every component of the entry's source. Weights stay as the files have them; the arithmetic is f32.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn load(entry: &ModelEntry, device: &Device) -> Result<Self, PipelineError> {
        let checkpoint = open(entry)?;
        Self::from_checkpoint(&entry.name, &checkpoint, device)
    }

    /// Builds the components from an opened checkpoint folder.
    ///
    /// # Errors
    /// As [`StableDiffusion::load`].
    pub fn from_checkpoint(
        name: &str,
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<Self, PipelineError> {
        let wrap = |source: WeightsError| PipelineError::Weights {
            name: name.to_owned(),
            source,
        };

        let scheduler_config =
            SchedulerConfig::from_json(&checkpoint.read("scheduler/scheduler_config.json").map_err(wrap)?)?;
        // The published SD 1.x folders have it; a folder without it gets SD 1.x's own special tokens.
        let settings = "tokenizer/tokenizer_config.json";
        let settings = checkpoint
            .has(settings)
            .then(|| checkpoint.read(settings))
            .transpose()
            .map_err(wrap)?;
        let tokenizer = ClipTokenizer::from_files(
            &checkpoint.read("tokenizer/vocab.json").map_err(wrap)?,
            &checkpoint.read("tokenizer/merges.txt").map_err(wrap)?,
            settings.as_deref(),
        )?;

        let text_config: ClipTextConfig = checkpoint.json("text_encoder/config.json").map_err(wrap)?;
        let component = checkpoint
            .component("text_encoder", Dtypes::Stored, device)
            .map_err(wrap)?;
        let text = ClipText::new(&text_config, component.var_builder())?;
        component.finish().map_err(wrap)?;

        let unet_config: UNetConfig = checkpoint.json("unet/config.json").map_err(wrap)?;
        let component = checkpoint
            .component("unet", Dtypes::Stored, device)
            .map_err(wrap)?;
        let unet = UNet::new(&unet_config, component.var_builder())?;
        component.finish().map_err(wrap)?;

        let vae_config: VaeConfig = checkpoint.json("vae/config.json").map_err(wrap)?;
        let component = checkpoint
            .component("vae", Dtypes::Stored, device)
            .map_err(wrap)?;
        let vae = Vae::new(&vae_config, component.var_builder())?;
        component.finish().map_err(wrap)?;

        let pixels_per_latent =
            u32::try_from(vae.config().downscale()).map_err(|_| PipelineError::Mismatch {
                name: name.to_owned(),
                detail: "the VAE has too many levels".to_owned(),
            })?;
        let loaded = Self {
            name: name.to_owned(),
            tokenizer,
            text,
            pixels_per_latent,
            unet,
            vae,
            scheduler_config,
            device: device.clone(),
            dtype: DType::F32,
        };
        loaded.check_fit()?;
        Ok(loaded)
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
        Source::Path(path) => {
            let found = if path.exists() {
                "is a single file"
            } else {
                "does not exist"
            };
            Err(unsupported(format!(
                "the path {found}; a diffusers folder is needed"
            )))
        }
        Source::Embedded(name) if name == "demo" => Ok(Checkpoint::in_memory("embedded:demo", |path| {
            pentimento_demo_model::read(path).and_then(Result::ok)
        })),
        Source::Embedded(name) => Err(unsupported(format!(
            "there is no embedded model `{name}`; the only one is `demo`"
        ))),
        Source::HuggingFace { .. } | Source::Https(_) => Err(unsupported(
            "downloads are not supported in this version; use a local folder".to_owned(),
        )),
    }
}
