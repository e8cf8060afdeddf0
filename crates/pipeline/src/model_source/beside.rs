//! Whether what a recipe names beside its checkpoint is for the same base, as far as small files tell, before anything waits.

use pentimento_models::VaeConfig;
use serde_json::Value;

use super::ModelSource;
use crate::{PipelineError, ResolvedModels};

impl ModelSource {
    /// Looks at the VAE, the IP-Adapter and the embeddings.
    ///
    /// # Errors
    /// [`PipelineError::VaeUnfit`], [`PipelineError::IpAdapterUnfit`] and [`PipelineError::EmbeddingWidth`]; others when a file
    /// cannot be read.
    pub(crate) fn check_beside(&self, models: &ResolvedModels) -> Result<(), PipelineError> {
        if let (Some(lone), Some(entry)) = (&self.vae, &models.vae) {
            self.check_vae(lone, &entry.name)?;
        }
        self.check_ip_adapter()?;
        if models.embeddings.is_empty() {
            return Ok(());
        }
        let widths = self.text_widths()?;
        match models
            .embeddings
            .iter()
            .find(|embedding| !embedding.fits(&widths))
        {
            None => Ok(()),
            Some(other) => Err(PipelineError::EmbeddingWidth {
                name: other.name().to_owned(),
                found: other.widths(),
                expected: widths.first().copied().unwrap_or(0),
            }),
        }
    }

    fn check_vae(&self, lone: &super::LoneVae, name: &str) -> Result<(), PipelineError> {
        let unfit = |detail: String| PipelineError::VaeUnfit {
            name: name.to_owned(),
            detail,
        };
        let config = match self.lone_vae_config(lone) {
            Ok(config) => config,
            Err(error) if error.is_permanent() => {
                tracing::info!(vae = %name, error = pentimento_types::describe_chain(&error), "refused");
                return Err(unfit("its files are not those of a VAE".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let config: VaeConfig = serde_json::from_value(config).map_err(|error| unfit(error.to_string()))?;
        let unet = self.unet_config()?.in_channels;
        let latent = config.latent_channels;
        if unet != latent && unet != 2 * latent + 1 {
            return Err(unfit(format!(
                "it has {latent} latent channels, and the UNet takes {unet}"
            )));
        }
        if config.downscale() != 8 {
            let found = config.downscale();
            return Err(unfit(format!(
                "a side of its latents is {found} times shorter, expected 8"
            )));
        }
        Ok(())
    }

    /// The widths of the text encoders.
    pub(crate) fn text_widths(&self) -> Result<Vec<usize>, PipelineError> {
        let second = Some("text_encoder_2/config.json").filter(|path| self.checkpoint.has(path));
        let there = std::iter::once("text_encoder/config.json").chain(second);
        let width = |path| {
            let config: Value = self
                .checkpoint
                .json(path)
                .map_err(|error| self.weights_error(error))?;
            let width = config.get("hidden_size").and_then(Value::as_u64);
            let width = width.and_then(|width| usize::try_from(width).ok());
            width.ok_or_else(|| self.mismatch("a text encoder's `hidden_size` is missing"))
        };
        there.map(width).collect()
    }
}
