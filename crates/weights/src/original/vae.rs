//! The VAE: its levels are numbered from the image inwards, on the way up too, where diffusers numbers from within.

use serde_json::{Value, json};

use super::{Part, Renamed};

/// `vae/config.json`, with the base's factor.
pub(super) fn config(part: &Part<'_>, scaling_factor: f64) -> Option<Value> {
    let levels = part.count("encoder.down");
    let widths: Option<Vec<usize>> = (0..levels)
        .map(|level| part.size(&format!("encoder.down.{level}.block.0.conv2.weight"), 0))
        .collect();
    Some(json!({
        "in_channels": part.size("encoder.conv_in.weight", 1)?,
        "out_channels": part.size("decoder.conv_out.weight", 0)?,
        "latent_channels": part.size("decoder.conv_in.weight", 1)?,
        "block_out_channels": widths?,
        "layers_per_block": part.count("encoder.down.0.block"),
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "norm_num_groups": 32,
        "scaling_factor": scaling_factor,
    }))
}

/// The tensors by diffusers' names.
pub(super) fn renamed(part: &Part<'_>) -> Renamed {
    let levels = part.count("decoder.up");
    part.renamed(|name| rename(name, levels))
}

fn rename(name: &str, levels: usize) -> Option<String> {
    let (coder, rest) = name
        .split_once('.')
        .filter(|(coder, _)| matches!(*coder, "encoder" | "decoder"))?;
    if let Some(rest) = rest.strip_prefix("mid.") {
        let (block, rest) = rest.split_once('.')?;
        return match block {
            "block_1" => Some(format!("{coder}.mid_block.resnets.0.{}", resnet(rest))),
            "block_2" => Some(format!("{coder}.mid_block.resnets.1.{}", resnet(rest))),
            "attn_1" => Some(format!("{coder}.mid_block.attentions.0.{}", attention(rest)?)),
            _ => None,
        };
    }
    if let Some(rest) = rest.strip_prefix("norm_out.") {
        return Some(format!("{coder}.conv_norm_out.{rest}"));
    }
    let (direction, rest) = match (rest.strip_prefix("down."), rest.strip_prefix("up.")) {
        (Some(rest), _) => ("down", rest),
        (None, Some(rest)) => ("up", rest),
        (None, None) => return None,
    };
    let (level, rest) = rest.split_once('.')?;
    let level: usize = level.parse().ok()?;
    let level = if direction == "up" {
        levels.checked_sub(level + 1)?
    } else {
        level
    };
    let blocks = format!("{coder}.{direction}_blocks.{level}");
    if let Some(rest) = rest.strip_prefix("block.") {
        let (layer, rest) = rest.split_once('.')?;
        return Some(format!("{blocks}.resnets.{layer}.{}", resnet(rest)));
    }
    let sampler = rest
        .strip_prefix("downsample.")
        .or_else(|| rest.strip_prefix("upsample."))?;
    Some(format!("{blocks}.{direction}samplers.0.{sampler}"))
}

fn resnet(rest: &str) -> String {
    rest.replacen("nin_shortcut.", "conv_shortcut.", 1)
}

fn attention(rest: &str) -> Option<String> {
    const PARTS: [(&str, &str); 5] = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
    ];
    let (old, new) = PARTS.iter().find(|(old, _)| rest.starts_with(old))?;
    Some(rest.replacen(old, new, 1))
}
