//! The LoRAs of a model: opened and laid beside the layers of its checkpoint, by names and shapes only.

use std::path::Path;
use std::sync::Arc;

use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::Device;
use pentimento_weights::{LoraFile, LoraFit, LoraNetwork, LoraTarget, ReadProgress, WeightsError};

use crate::PipelineError;
use crate::component::{ComponentRole, Patch, PatchSet};
use crate::layer_changes::{Holding, expected_bytes};

/// The layers of a checkpoint's networks.
pub(crate) type Targets = [(LoraNetwork, Vec<LoraTarget>)];

/// A LoRA beside a checkpoint.
#[derive(Debug)]
pub(crate) struct OpenLora {
    pub(crate) entry: Arc<ModelEntry>,
    strength: f64,
    pub(crate) file: LoraFile,
    pub(crate) fit: LoraFit,
}

/// All LoRAs of a model.
#[derive(Debug, Default)]
pub(crate) struct OpenLoras {
    /// Part of the weights that all sets stand on.
    pub(crate) lcm: Option<OpenLora>,
    /// Beside them, in the order of the recipe.
    pub(crate) set: Vec<OpenLora>,
    /// The layers of all networks that they were laid beside.
    pub(crate) targets: Vec<(LoraNetwork, Vec<LoraTarget>)>,
    /// One was wanted, and there is none for the checkpoint's base.
    pub(crate) lcm_is_missing: bool,
}

impl OpenLora {
    /// Counts what is read from disk in `progress`.
    pub(crate) fn open(
        entry: &Arc<ModelEntry>,
        strength: f64,
        (targets, progress): (&Targets, &ReadProgress),
    ) -> Result<Self, PipelineError> {
        let wrap = |source| lora_error(entry, source);
        let file = LoraFile::open_counting(lora_path(entry)?, progress).map_err(wrap)?;
        let fit = file.fit(targets).map_err(wrap)?;
        Ok(Self {
            entry: Arc::clone(entry),
            strength,
            file,
            fit,
        })
    }

    pub(crate) const fn strength(&self) -> f64 {
        self.strength
    }

    pub(crate) fn changes(&self, network: LoraNetwork) -> bool {
        self.fit.layers.iter().any(|layer| layer.network == network)
    }

    /// Names the LoRA in what went wrong with it.
    pub(crate) fn error(&self, source: WeightsError) -> PipelineError {
        lora_error(&self.entry, source)
    }

    fn patch(&self) -> Result<Patch, PipelineError> {
        let files = self.file.identity().map_err(|source| self.error(source))?;
        Ok(Patch::new(files, self.strength))
    }
}

impl OpenLoras {
    /// What they make of one network on this device.
    pub(crate) fn patches(&self, role: ComponentRole, device: &Device) -> Result<PatchSet, PipelineError> {
        let Some(network) = network_of(role) else {
            return Ok(PatchSet::default());
        };
        let patches = |loras: &[&OpenLora]| -> Result<Vec<Patch>, PipelineError> {
            loras.iter().map(|lora| lora.patch()).collect()
        };
        let bytes = |loras: &[&OpenLora], is_merged: bool| {
            let layers = loras.iter().flat_map(|lora| &lora.fit.layers);
            let of_network = layers.filter(|layer| layer.network == network);
            let held = of_network.map(|layer| {
                // What is merged is no branch, whatever its form: the layer becomes f32.
                let rank = layer.branch_rank.filter(|_| !is_merged);
                (&*layer.layer, &*layer.weight_dims, rank)
            });
            let held = expected_bytes(held, Holding::on(device));
            match device {
                // A GPU's weights are of its type before and after.
                Device::Gpu(_) if is_merged => 0,
                Device::Gpu(_) => held,
                // The files' own numbers are beside it while it is made.
                Device::Cpu | Device::CpuInBf16 => {
                    let read = loras.iter().map(|lora| lora.file.memory_bytes());
                    read.fold(held, u64::saturating_add)
                }
            }
        };
        let merged: Vec<&OpenLora> = self.lcm.iter().filter(|lora| lora.changes(network)).collect();
        let beside: Vec<&OpenLora> = self.set.iter().filter(|lora| lora.changes(network)).collect();
        Ok(PatchSet {
            merged: patches(&merged)?,
            merged_bytes: bytes(&merged, true),
            beside: patches(&beside)?,
            beside_bytes: bytes(&beside, false),
        })
    }
}

/// The name that LoRA files have for a component; None for those that no LoRA changes.
pub(crate) const fn network_of(role: ComponentRole) -> Option<LoraNetwork> {
    match role {
        ComponentRole::TextEncoder => Some(LoraNetwork::TextEncoder),
        ComponentRole::TextEncoder2 => Some(LoraNetwork::TextEncoder2),
        ComponentRole::UNet => Some(LoraNetwork::UNet),
        ComponentRole::Tokenizer
        | ComponentRole::Tokenizer2
        | ComponentRole::Vae
        | ComponentRole::IpAdapter
        | ComponentRole::ImageEncoder
        | ComponentRole::PromptEnhancer => None,
    }
}

/// Where the file or folder of a LoRA is.
fn lora_path(entry: &ModelEntry) -> Result<&Path, PipelineError> {
    match &entry.source {
        Source::Path(path) => Ok(path),
        Source::Embedded(_) | Source::HuggingFace { .. } | Source::Https(_) => {
            Err(PipelineError::UnsupportedSource {
                name: entry.name.clone(),
                reason: "a LoRA is read from a local file or folder".to_owned(),
            })
        }
    }
}

fn lora_error(entry: &ModelEntry, source: WeightsError) -> PipelineError {
    PipelineError::Lora {
        name: entry.name.clone(),
        path: entry.source.to_string(),
        source: Box::new(source),
    }
}
