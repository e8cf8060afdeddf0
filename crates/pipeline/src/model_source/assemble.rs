//! Components → one model, whose parts must fit each other.

use candle_core::{DType, Device};
use pentimento_weights::Checkpoint;

use super::ModelSource;
use crate::component::{Component, ComponentKey};
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
