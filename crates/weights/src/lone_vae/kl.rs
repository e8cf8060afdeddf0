//! A large VAE under the names that diffusers gives it, without its configuration.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::count;
use crate::container::StoredTensor;

/// The configuration, found from the shapes; None where the tensors are something else.
pub(super) fn config(tensors: &BTreeMap<String, StoredTensor>) -> Option<Value> {
    let size = |name: &str, dimension: usize| tensors.get(name)?.shape.get(dimension).copied();
    let levels = count(tensors, "encoder.down_blocks");
    let widths: Option<Vec<usize>> = (0..levels)
        .map(|level| size(&format!("encoder.down_blocks.{level}.resnets.0.conv2.weight"), 0))
        .collect();
    let has = |name: &str| tensors.contains_key(name);
    (levels > 0).then_some(())?;
    Some(json!({
        "_class_name": "AutoencoderKL",
        "in_channels": size("encoder.conv_in.weight", 1)?,
        "out_channels": size("decoder.conv_out.weight", 0)?,
        "latent_channels": size("decoder.conv_in.weight", 1)?,
        "block_out_channels": widths?,
        "layers_per_block": count(tensors, "encoder.down_blocks.0.resnets"),
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "norm_num_groups": 32,
        "mid_block_add_attention": has("encoder.mid_block.attentions.0.group_norm.weight"),
        "use_quant_conv": has("quant_conv.weight"),
        "use_post_quant_conv": has("post_quant_conv.weight"),
    }))
}
