//! Components with LoRAs: merged into the weights while they are read, or as a copy of a component that is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_nn::VarBuilder;
use pentimento_models::{ClipText, Device, LayerName, LayerPatch, LayerShape, LayerSource, ModelError};
use pentimento_weights::{LoraNetwork, LoraTarget, ResolvedLora, WeightsError};

use super::{DTYPES, HOST, ModelSource};
use crate::PipelineError;
use crate::component::{Component, ComponentRole};
use crate::layer_changes::{ChangeError, LayerChanges, merged_into};
use crate::loras::{OpenLora, Targets, network_of};
use crate::text_encoder::TextEncoder;

/// About what a layer of a copy takes that shares all its weights: names and places.
const LAYER_BYTES: u64 = 256;

/// LoRAs as read for one network, with their strengths.
type Scaled = Vec<(ResolvedLora, f64)>;

/// It remembers nothing of its base, whose states are others.
fn text_copy((text, bytes): (ClipText, u64)) -> (Arc<TextEncoder>, u64) {
    let text = TextEncoder::new(text);
    let bytes = bytes.saturating_add(text.chunk_bytes());
    (Arc::new(text), bytes)
}

impl ModelSource {
    /// Builds a network from `weights` with the LCM-LoRA in them.
    pub(super) fn with_merged<T>(
        &self,
        (role, device): (ComponentRole, &Device),
        weights: VarBuilder<'_>,
        build: impl FnOnce(LayerSource<'_>) -> Result<T, ModelError>,
    ) -> Result<Result<T, ModelError>, PipelineError> {
        let Some(network) = network_of(role) else {
            return Ok(build(LayerSource::new(weights, device)));
        };
        let loras = self.open_loras()?;
        let lcm = read_loras(network, &loras.targets, &loras.lcm)?;
        let changes = LayerChanges::of(network, borrowed(&lcm));
        let merged = merged_into(weights, changes);
        Ok(build(LayerSource::new(merged, device)))
    }

    /// A copy of `base` with the set of LoRAs. The number is what the copy holds by itself, in bytes.
    pub(super) fn patched(
        &self,
        role: ComponentRole,
        base: &Component,
    ) -> Result<(Component, u64), PipelineError> {
        let Some(network) = network_of(role) else {
            return Err(self.mismatch("no LoRA changes this component"));
        };
        let loras = self.open_loras()?;
        let (lcm, set) = (
            read_loras(network, &loras.targets, &loras.lcm)?,
            read_loras(network, &loras.targets, &loras.set)?,
        );
        let merged = LayerChanges::of(network, borrowed(&lcm));
        let changes = LayerChanges::of(network, borrowed(&set));
        let weights = self.checkpoint.component(role.folder(), DTYPES, &HOST);
        let weights = weights.map_err(|error| self.weights_error(error))?;
        let stored = weights.var_builder();
        let mut layers = 0;
        let change = &mut |name: &LayerName, shape: LayerShape| -> Result<Option<LayerPatch>, ChangeError> {
            layers += 1;
            changes.patch((name, shape), &merged, &stored)
        };
        let copy = match base {
            Component::TextEncoder(text) => text
                .patched(change)
                .map(text_copy)
                .map(|(text, bytes)| (Component::TextEncoder(text), bytes)),
            Component::TextEncoder2(text) => text
                .patched(change)
                .map(text_copy)
                .map(|(text, bytes)| (Component::TextEncoder2(text), bytes)),
            Component::UNet(unet) => unet
                .patched(change)
                .map(|(unet, bytes)| (Component::UNet(Arc::new(unet)), bytes)),
            Component::Tokenizer(_)
            | Component::Tokenizer2(_)
            | Component::Vae(_)
            | Component::IpAdapter(_)
            | Component::ImageEncoder(_)
            | Component::PromptEnhancer(_) => {
                return Err(self.mismatch("no LoRA changes this component"));
            }
        };
        let copy = copy.map_err(|error| match (weights.take_fault(), error) {
            (Some(fault), _) | (None, ChangeError::Weights(fault)) => self.weights_error(fault),
            (None, ChangeError::Model(error)) => self.part_error(error),
            (None, ChangeError::Tensor(error)) => PipelineError::Tensor(error),
        })?;
        weights
            .finish_partly()
            .map_err(|error| self.weights_error(error))?;
        let (copy, bytes) = copy;
        Ok((copy, bytes + layers * LAYER_BYTES))
    }

    /// The layers of a component, as its files have them.
    pub(super) fn layers_of(&self, role: ComponentRole) -> Result<Vec<LoraTarget>, PipelineError> {
        let wrap = |error: WeightsError| self.weights_error(error);
        let weights = self.checkpoint.component(role.folder(), DTYPES, &HOST);
        let weights = weights.map_err(wrap)?;
        let tensors: BTreeMap<&str, &[usize]> = weights.tensors().collect();
        let layers = tensors.iter().filter_map(|(name, dims)| {
            let layer = name.strip_suffix(".weight")?;
            Some(LoraTarget {
                name: layer_name(role, layer),
                weight_dims: dims.to_vec(),
                has_bias: tensors.contains_key(&*format!("{layer}.bias")),
            })
        });
        Ok(layers.collect())
    }
}

/// The numbers of those of `loras` that change a network, laid beside all networks as when they were opened.
fn read_loras<'a>(
    network: LoraNetwork,
    targets: &Targets,
    loras: impl IntoIterator<Item = &'a OpenLora>,
) -> Result<Scaled, PipelineError> {
    let changing = loras.into_iter().filter(|lora| lora.changes(network));
    changing
        .map(|lora| {
            let resolved = lora.file.resolve_one(targets, network);
            Ok((resolved.map_err(|error| lora.error(error))?, lora.strength()))
        })
        .collect()
}

/// As the network calls it: transformers 5 saves CLIP without the first part of the path.
fn layer_name(role: ComponentRole, stored: &str) -> String {
    let is_text = matches!(role, ComponentRole::TextEncoder | ComponentRole::TextEncoder2);
    let is_bare = is_text && !stored.starts_with("text_model.") && stored != "text_projection";
    if is_bare {
        format!("text_model.{stored}")
    } else {
        stored.to_owned()
    }
}

fn borrowed(loras: &Scaled) -> impl Iterator<Item = (&ResolvedLora, f64)> {
    loras.iter().map(|(lora, strength)| (lora, *strength))
}
