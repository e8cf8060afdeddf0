//! Which LoRAs a model has: those of its recipe, and the LCM-LoRA of its base where the run needs one.

use std::sync::Arc;

use pentimento_catalog::{BaseModel, ModelEntry};
use pentimento_weights::{LoraNetwork, LoraTarget};

use super::ModelSource;
use crate::PipelineError;
use crate::loras::{OpenLora, OpenLoras, Targets, network_of};

impl ModelSource {
    /// Opens the LoRAs of the model, and chooses the LCM-LoRA where one is wanted.
    pub(crate) fn open_loras(&self) -> Result<OpenLoras, PipelineError> {
        if self.loras.is_empty() && self.lcm_loras.is_none() {
            return Ok(OpenLoras::default());
        }
        let candidates = match &self.lcm_loras {
            Some(candidates) if self.unet_config()?.time_cond_proj_dim.is_none() => Some(candidates),
            _ => None,
        };
        if self.loras.is_empty() && candidates.is_none_or(Vec::is_empty) {
            return Ok(OpenLoras {
                lcm_is_missing: candidates.is_some(),
                ..OpenLoras::default()
            });
        }
        let targets = self.lora_targets()?;
        let lcm = match candidates {
            Some(candidates) => self.lcm_lora(candidates, &targets)?,
            None => None,
        };
        let open = |(entry, strength): &(Arc<ModelEntry>, f64)| {
            OpenLora::open(entry, *strength, (&targets, &self.progress))
        };
        Ok(OpenLoras {
            lcm_is_missing: candidates.is_some() && lcm.is_none(),
            lcm,
            set: self.loras.iter().map(open).collect::<Result<_, _>>()?,
            targets,
        })
    }

    /// The layers of the networks that LoRAs change, as the files have them.
    pub(crate) fn lora_targets(&self) -> Result<Vec<(LoraNetwork, Vec<LoraTarget>)>, PipelineError> {
        let roles = self.family()?.roles().iter();
        roles
            .filter_map(|role| Some((*role, network_of(*role)?)))
            .map(|(role, network)| Ok((network, self.layers_of(role)?)))
            .collect()
    }

    /// One that says that it is for the checkpoint's base, or else one that fits.
    fn lcm_lora(
        &self,
        candidates: &[Arc<ModelEntry>],
        targets: &Targets,
    ) -> Result<Option<OpenLora>, PipelineError> {
        let base = self.base()?;
        let named = candidates
            .iter()
            .find(|entry| entry.base.is_some() && entry.base == base);
        if let Some(entry) = named {
            return OpenLora::open(entry, 1.0, (targets, &self.progress)).map(Some);
        }
        let unnamed = candidates.iter().filter(|entry| entry.base.is_none());
        Ok(unnamed
            .filter_map(|entry| OpenLora::open(entry, 1.0, (targets, &self.progress)).ok())
            .next())
    }

    /// The checkpoint's family: as the catalogue says, or by the width of the text states that its UNet takes.
    pub(crate) fn base(&self) -> Result<Option<BaseModel>, PipelineError> {
        if self.base.is_some() {
            return Ok(self.base);
        }
        Ok(match self.unet_config()?.cross_attention_dim {
            768 => Some(BaseModel::Sd15),
            1024 => Some(BaseModel::Sd2),
            2048 => Some(BaseModel::Sdxl),
            _ => None,
        })
    }
}
