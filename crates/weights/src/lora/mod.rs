//! LoRA files and their relatives, from whatever trainer: every tensor is given to a layer of a checkpoint or listed, and
//! each layer's change is computed by the formula of its form.
//!
//! Nothing here knows a network: the layers are told by [`LoraTarget`], and what becomes of a [`LayerChange`] is decided
//! above. Alpha and rank are those of each module. Where two published programs disagree, the formula of the paper counts.

mod about;
mod change;
mod file;
mod form;
mod layers;
mod module;
mod names;
mod peft;
#[cfg(test)]
mod tests;

pub use about::LoraAbout;
pub use change::{LayerChange, LowRank};
pub use file::LoraFile;

/// Which network of a checkpoint a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LoraNetwork {
    /// `text_encoder`
    TextEncoder,
    /// `text_encoder_2`
    TextEncoder2,
    /// `unet`
    UNet,
}

/// A layer that a network has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoraTarget {
    /// Its path in the checkpoint, as diffusers names it: `mid_block.attentions.0.transformer_blocks.0.attn1.to_q`,
    /// `text_model.encoder.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Its weight's shape: (outputs, inputs), (outputs, inputs, kernel height, kernel width), or (outputs) for norms.
    pub weight_dims: Vec<usize>,
    /// Whether it has a bias.
    pub has_bias: bool,
}

/// A LoRA beside the checkpoint that it is for, in memory.
#[derive(Clone, Debug, Default)]
pub struct ResolvedLora {
    /// What happens to which layer of which network. A layer may be named more than once; the differences add up.
    pub changes: Vec<(LoraNetwork, String, LayerChange)>,
    /// Names of tensors that no layer has a use for, in alphabetical order.
    pub unmatched: Vec<String>,
}

/// A LoRA beside the checkpoint that it is for, by names and shapes.
#[derive(Clone, Debug, Default)]
pub struct LoraFit {
    /// The layers that change; one may be named more than once.
    pub layers: Vec<FitLayer>,
    /// Names of tensors that no layer has a use for, in alphabetical order.
    pub unmatched: Vec<String>,
}

/// A layer that a LoRA changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitLayer {
    /// Of which network.
    pub network: LoraNetwork,
    /// The layer's path in the checkpoint.
    pub layer: String,
    /// The shape of its weight.
    pub weight_dims: Vec<usize>,
    /// The rank, where [`LayerChange::low_rank`] has an answer.
    pub branch_rank: Option<usize>,
}

impl ResolvedLora {
    /// Bytes of all changes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.changes
            .iter()
            .map(|(_, _, change)| change.size_bytes())
            .sum()
    }
}
