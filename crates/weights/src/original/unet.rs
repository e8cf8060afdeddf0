//! The UNet: `input_blocks`, `middle_block` and `output_blocks` are numbered through all levels.

use serde_json::{Value, json};

use super::base::Base;
use super::{Part, Renamed};

/// SDXL's size conditions.
const SIZES: usize = 6;

/// `unet/config.json`. `pooled`: width of the text's pooled state, in SDXL, which leaves the rest of what is embedded with it
/// to the sizes.
pub(super) fn config(part: &Part<'_>, base: Base, pooled: Option<usize>) -> Option<Value> {
    let layout = Layout::of(part)?;
    let levels = layout.levels;
    let first = |level: usize| 1 + level * (layout.layers + 1);
    let widths: Option<Vec<usize>> = (0..levels)
        .map(|level| part.size(&format!("input_blocks.{}.0.out_layers.3.weight", first(level)), 0))
        .collect();
    let attention: Vec<bool> = (0..levels)
        .map(|level| {
            let name = format!("input_blocks.{}.1.proj_in.weight", first(level));
            part.shape(&name).is_some()
        })
        .collect();
    let depth = |level: usize| part.count(&format!("input_blocks.{}.1.transformer_blocks", first(level)));
    let depths: Vec<usize> = (0..levels).map(|level| depth(level).max(1)).collect();
    let widths = widths?;
    // The number of heads, in spite of the name; no tensor tells it.
    let heads = match base {
        Base::Sd1 => json!(8),
        Base::Sd2 | Base::Sdxl => json!(widths.iter().map(|width| (width / 64).max(1)).collect::<Vec<_>>()),
    };
    let added = part.size("label_emb.0.0.weight", 1);
    let attends = "middle_block.1.transformer_blocks.0.attn2.to_k.weight";
    let down = |attends: &bool| {
        if *attends {
            "CrossAttnDownBlock2D"
        } else {
            "DownBlock2D"
        }
    };
    let up = |attends: &bool| {
        if *attends {
            "CrossAttnUpBlock2D"
        } else {
            "UpBlock2D"
        }
    };
    Some(json!({
        "in_channels": part.size("input_blocks.0.0.weight", 1)?,
        "out_channels": part.size("out.2.weight", 0)?,
        "block_out_channels": widths,
        "layers_per_block": layout.layers,
        "down_block_types": attention.iter().map(down).collect::<Vec<_>>(),
        "up_block_types": attention.iter().rev().map(up).collect::<Vec<_>>(),
        "cross_attention_dim": part.size(attends, 1)?,
        "attention_head_dim": heads,
        "transformer_layers_per_block": depths,
        "addition_embed_type": added.map(|_| "text_time"),
        "addition_time_embed_dim": added.and_then(|added| Some(added.checked_sub(pooled?)? / SIZES)),
        "projection_class_embeddings_input_dim": added,
        "use_linear_projection": part.shape("middle_block.1.proj_in.weight")?.len() == 2,
        "time_cond_proj_dim": part.size("time_embed.cond_proj.weight", 1),
        "norm_num_groups": 32, "norm_eps": 1e-5, "flip_sin_to_cos": true, "freq_shift": 0,
        "sample_size": 64,
    }))
}

/// The tensors by diffusers' names.
pub(super) fn renamed(part: &Part<'_>) -> Renamed {
    let layout = Layout::of(part);
    part.renamed(|name| layout.as_ref()?.rename(name))
}

/// How the blocks are numbered.
struct Layout {
    levels: usize,
    /// Residual blocks of a level on the way down; one more on the way up.
    layers: usize,
    /// Blocks on the way up that have attention, so that their upsampler comes third.
    attends: Vec<bool>,
}

impl Layout {
    fn of(part: &Part<'_>) -> Option<Self> {
        let blocks = part.count("input_blocks");
        let downsamples = |number: &usize| {
            part.shape(&format!("input_blocks.{number}.0.op.weight"))
                .is_some()
        };
        // The first block is a convolution; each level but the last ends with a downsampler.
        let layers = match (1..blocks).find(downsamples) {
            Some(first) => first - 1,
            None => blocks.checked_sub(1)?,
        };
        let attends = |number| {
            part.shape(&format!("output_blocks.{number}.1.proj_in.weight"))
                .is_some()
        };
        (layers > 0).then(|| Self {
            levels: blocks.div_ceil(layers + 1),
            layers,
            attends: (0..part.count("output_blocks")).map(attends).collect(),
        })
    }

    fn rename(&self, name: &str) -> Option<String> {
        if let Some(rest) = name.strip_prefix("input_blocks.") {
            return self.input_block(rest);
        }
        if let Some(rest) = name.strip_prefix("output_blocks.") {
            return self.output_block(rest);
        }
        if let Some(rest) = name.strip_prefix("middle_block.") {
            let (number, rest) = rest.split_once('.')?;
            return match number {
                "0" => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
                "1" => Some(format!("mid_block.attentions.0.{rest}")),
                "2" => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
                _ => None,
            };
        }
        const REST: [(&str, &str); 7] = [
            ("time_embed.0.", "time_embedding.linear_1."),
            ("time_embed.2.", "time_embedding.linear_2."),
            // Distilled latent consistency models; diffusers' own conversion does not know it.
            ("time_embed.cond_proj.", "time_embedding.cond_proj."),
            // SDXL's pooled text and sizes.
            ("label_emb.0.0.", "add_embedding.linear_1."),
            ("label_emb.0.2.", "add_embedding.linear_2."),
            ("out.0.", "conv_norm_out."),
            ("out.2.", "conv_out."),
        ];
        let (old, new) = REST.iter().find(|(old, _)| name.starts_with(old))?;
        Some(name.replacen(old, new, 1))
    }

    fn input_block(&self, rest: &str) -> Option<String> {
        let (number, rest) = rest.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let (kind, rest) = rest.split_once('.')?;
        let Some(number) = number.checked_sub(1) else {
            return Some(format!("conv_in.{rest}"));
        };
        let (level, layer) = (number / (self.layers + 1), number % (self.layers + 1));
        match (kind, rest.strip_prefix("op.")) {
            ("0", Some(rest)) => Some(format!("down_blocks.{level}.downsamplers.0.conv.{rest}")),
            ("0", None) => Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
            ("1", _) => Some(format!("down_blocks.{level}.attentions.{layer}.{rest}")),
            _ => None,
        }
    }

    fn output_block(&self, rest: &str) -> Option<String> {
        let (number, rest) = rest.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let (kind, rest) = rest.split_once('.')?;
        let (level, layer) = (number / (self.layers + 1), number % (self.layers + 1));
        let upsampler = if *self.attends.get(number)? { "2" } else { "1" };
        if kind == "0" {
            Some(format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?))
        } else if kind == upsampler {
            Some(format!("up_blocks.{level}.upsamplers.0.{rest}"))
        } else {
            (kind == "1").then(|| format!("up_blocks.{level}.attentions.{layer}.{rest}"))
        }
    }
}

/// The parts of a residual block.
fn resnet(rest: &str) -> Option<String> {
    const PARTS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("emb_layers.1.", "time_emb_proj."),
        ("skip_connection.", "conv_shortcut."),
    ];
    let (old, new) = PARTS.iter().find(|(old, _)| rest.starts_with(old))?;
    Some(rest.replacen(old, new, 1))
}
