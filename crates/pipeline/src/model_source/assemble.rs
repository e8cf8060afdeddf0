//! Components → one model, whose parts must fit each other.

use std::sync::Arc;

use pentimento_models::Device;
use pentimento_weights::Checkpoint;

use super::ModelSource;
use super::family::Family;
use crate::component::{Component, ComponentKey};
use crate::stable_diffusion::{ImagePrompter, SecondEncoder};
use crate::{PipelineError, ResolvedModels, StableDiffusion};

impl ModelSource {
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
        let (mut tokenizer_2, mut text_2) = (None, None);
        let (mut adapter, mut encoder) = (None, None);
        for component in components {
            match component {
                Component::Tokenizer(part) => tokenizer = Some(part),
                Component::Tokenizer2(part) => tokenizer_2 = Some(part),
                Component::TextEncoder(part) => text = Some(part),
                Component::TextEncoder2(part) => text_2 = Some(part),
                Component::UNet(part) => unet = Some(part),
                Component::Vae(part) => vae = Some(part),
                Component::IpAdapter(part) => adapter = Some(part),
                Component::ImageEncoder(part) => encoder = Some(part),
                // Of no checkpoint.
                Component::PromptEnhancer(_) => {}
            }
        }
        let missing = || self.mismatch("a component was not loaded");
        let second = match (self.family()?, tokenizer_2, text_2) {
            (Family::OneEncoder, ..) => None,
            (Family::TwoEncoders { zeros_for_none }, Some(tokenizer), Some(text)) => Some(SecondEncoder {
                tokenizer,
                text,
                zeros_for_none,
            }),
            (Family::TwoEncoders { .. }, ..) => return Err(missing()),
        };
        let (Some(tokenizer), Some(text), Some(unet), Some(vae)) = (tokenizer, text, unet, vae) else {
            return Err(missing());
        };
        let image_prompter = match (&self.ip_adapter, adapter, encoder) {
            (None, ..) => None,
            (Some(_), Some(adapter), Some(encoder)) => Some(ImagePrompter::new(adapter, encoder)),
            (Some(_), ..) => return Err(missing()),
        };
        let pixels_per_latent = u32::try_from(vae.config().downscale());
        let model = StableDiffusion {
            name: self.name.clone(),
            tokenizer,
            text,
            second,
            pixels_per_latent: pixels_per_latent.map_err(|_| self.mismatch("the VAE has too many levels"))?,
            unet,
            vae,
            wide_vae: Arc::default(),
            image_prompter,
            scheduler_config,
        };
        model.check_fit()?;
        Ok(model)
    }
}

impl StableDiffusion {
    /// Reads every component of these models.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn load(models: &ResolvedModels, device: &Device) -> Result<Self, PipelineError> {
        Self::read_all(&ModelSource::open(models, device)?)
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
        Self::read_all(&ModelSource::new(name, checkpoint, device))
    }

    fn read_all(source: &ModelSource) -> Result<Self, PipelineError> {
        let read = |key: &ComponentKey| -> Result<Component, PipelineError> {
            let base = key.base().map(|base| source.read(&base, None)).transpose()?;
            Ok(source.read(key, base.as_ref().map(|(base, _)| base))?.0)
        };
        let keys = source.keys()?;
        source.assemble(keys.iter().map(read).collect::<Result<Vec<_>, _>>()?)
    }

    /// The parts of one folder must fit each other; a mixed-up folder is found here and not in a forward.
    fn check_fit(&self) -> Result<(), PipelineError> {
        let mismatch = |detail: String| PipelineError::Mismatch {
            name: self.name.clone(),
            detail,
        };
        let first = self.text.config().hidden_size;
        let second = self
            .second
            .as_ref()
            .map(|second| second.text.config().hidden_size);
        let (text, cross) = (
            first + second.unwrap_or(0),
            self.unet.config().cross_attention_dim,
        );
        if text != cross {
            let encoders = match second {
                None => format!("the text encoder is {first} wide"),
                Some(second) => format!("the text encoders are {first} and {second} wide"),
            };
            return Err(mismatch(format!(
                "{encoders}, but the UNet's cross_attention_dim is {cross}"
            )));
        }
        let pooled = self.second.as_ref().and_then(|second| second.text.pooled_width());
        let taken = self.unet.config().text_time.map(|sizes| sizes.pooled);
        if pooled != taken {
            let width =
                |width: Option<usize>| width.map_or("none".to_owned(), |width| format!("one of {width}"));
            return Err(mismatch(format!(
                "the text encoders give {} as a pooled state, but the UNet takes {}",
                width(pooled),
                width(taken)
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
