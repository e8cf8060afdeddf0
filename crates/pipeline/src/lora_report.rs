//! What can be said of a model's LoRAs before anything is loaded: that one does not fit, and what of one has no effect.

use pentimento_models::Device;

use crate::{ModelSource, PipelineError, ResolvedModels};

/// What a caller should be told about the LoRAs of a model, before anything of it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoraReport {
    /// By a LoRA's name in the catalogue, in the order of the recipe: its tensors that belong to no layer of the checkpoint.
    pub unmatched: Vec<(String, Vec<String>)>,
    /// The run is that of a latent consistency model, the checkpoint is none, and there is no LCM-LoRA for its base.
    pub lcm_is_missing: bool,
}

impl LoraReport {
    /// Lays the LoRAs beside the checkpoint by names and shapes: reads the beginnings of files, and no weights.
    ///
    /// # Errors
    /// [`PipelineError::Lora`] when one cannot be used with this checkpoint; others when the checkpoint cannot be read.
    pub fn of(models: &ResolvedModels) -> Result<Self, PipelineError> {
        let loras = ModelSource::open(models, &Device::Cpu)?.open_loras()?;
        let all = loras.lcm.into_iter().chain(loras.set);
        Ok(Self {
            unmatched: all
                .filter(|lora| !lora.fit.unmatched.is_empty())
                .map(|lora| (lora.entry.name.clone(), lora.fit.unmatched))
                .collect(),
            lcm_is_missing: loras.lcm_is_missing,
        })
    }
}
