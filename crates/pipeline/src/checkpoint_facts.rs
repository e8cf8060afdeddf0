//! What small files of a checkpoint say of what may be put beside it, before any weights are read.

use std::sync::Arc;

use pentimento_catalog::{BaseModel, ModelEntry};
use pentimento_models::Device;

use crate::{ModelSource, PipelineError, PromptEmbedding, ResolvedModels};

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Its family, as the catalogue says or the files show.
    pub base: Option<BaseModel>,
    /// It takes the guidance scale as an input, as latent consistency models do, and needs no LCM-LoRA.
    pub is_distilled: bool,
    /// The widths of its text encoders.
    text_widths: Vec<usize>,
}

impl CheckpointFacts {
    /// Reads them from a checkpoint whose files are on this machine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(checkpoint: &Arc<ModelEntry>) -> Result<Self, PipelineError> {
        let models = ResolvedModels::checkpoint(Arc::clone(checkpoint));
        let source = ModelSource::open(&models, &Device::Cpu)?;
        Ok(Self {
            base: source.base()?,
            is_distilled: source.unet_config()?.time_cond_proj_dim.is_some(),
            text_widths: source.text_widths()?,
        })
    }

    /// Whether an embedding has the widths of its text encoders.
    #[must_use]
    pub fn takes(&self, embedding: &PromptEmbedding) -> bool {
        embedding.fits(&self.text_widths)
    }
}
