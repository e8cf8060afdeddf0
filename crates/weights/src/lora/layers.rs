//! The layers of a checkpoint under every name that files have for them, so that a name is looked up and never parsed.

use std::collections::HashMap;

use super::names::{Address, number, underscored};
use super::{LoraNetwork, LoraTarget};

/// The layers that a LoRA may change.
pub(super) struct Layers<'a> {
    targets: Vec<(LoraNetwork, &'a LoraTarget)>,
    by_name: HashMap<String, Vec<usize>>,
    /// In the order of the first numbering.
    numbered_unet: Vec<usize>,
    numbered_text: Vec<usize>,
}

impl<'a> Layers<'a> {
    pub(super) fn of(networks: &'a [(LoraNetwork, Vec<LoraTarget>)]) -> Self {
        let mut targets = Vec::new();
        for (network, layers) in networks {
            targets.extend(layers.iter().map(|target| (*network, target)));
        }
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let of_unet = networks.iter().find(|(network, _)| *network == LoraNetwork::UNet);
        let original = of_unet.and_then(|(_, layers)| Original::of(layers));
        for (place, (network, target)) in targets.iter().enumerate() {
            for name in names(*network, &target.name, original.as_ref()) {
                let places = by_name.entry(name).or_default();
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        Self {
            numbered_unet: numbered(&targets, LoraNetwork::UNet),
            numbered_text: numbered(&targets, LoraNetwork::TextEncoder),
            targets,
            by_name,
        }
    }

    /// The layers that a module may mean, the likeliest first; several where two networks have one of that name and the
    /// module does not say which it is for.
    pub(super) fn meant(&self, module: &str, address: &Address) -> Vec<(LoraNetwork, &'a LoraTarget)> {
        if let Some((network, number)) = number(module) {
            let order = if network == LoraNetwork::UNet {
                &self.numbered_unet
            } else {
                &self.numbered_text
            };
            let place = order.get(number).copied();
            return place.map(|place| self.targets[place]).into_iter().collect();
        }
        let places = self.by_name.get(&address.layer).map_or(&[][..], Vec::as_slice);
        let found = places.iter().map(|place| self.targets[*place]);
        found
            .filter(|(network, _)| address.network.is_none_or(|said| said == *network))
            .collect()
    }
}

/// Every name that files have for a layer, with underscores for dots.
fn names(network: LoraNetwork, path: &str, original: Option<&Original>) -> Vec<String> {
    let mut paths = vec![path.to_owned()];
    if network == LoraNetwork::UNet {
        paths.extend(original.and_then(|original| original.name(path)));
    } else if let Some(short) = path.strip_prefix("text_model.") {
        // transformers 5 leaves it out.
        paths.push(short.to_owned());
    }
    // What diffusers' first attention processors called the four matrices of each attention.
    let first = |path: &String| {
        let (attention, matrix) = path.rsplit_once('.')?;
        let old = match matrix {
            "q_proj" => "to_q",
            "k_proj" => "to_k",
            "v_proj" => "to_v",
            "out_proj" => "to_out",
            "0" => return attention.ends_with(".to_out").then(|| attention.to_owned()),
            _ => return None,
        };
        Some(format!("{attention}.{old}"))
    };
    let old: Vec<String> = paths.iter().filter_map(first).collect();
    paths.extend(old);
    paths.iter().map(|path| underscored(path)).collect()
}

/// How the blocks of a UNet are numbered in the original repositories (`openaimodel.py`), which kohya's files for SDXL go
/// by.
struct Original {
    /// Residual blocks of a level on the way down.
    layers: usize,
    /// Levels on the way up that have attention, so that their upsampler comes third.
    attends: Vec<bool>,
}

impl Original {
    fn of(targets: &[LoraTarget]) -> Option<Self> {
        let has = |prefix: &str| targets.iter().any(|target| target.name.starts_with(prefix));
        let layers = (0..)
            .take_while(|layer| has(&format!("down_blocks.0.resnets.{layer}.")))
            .count();
        let levels = (0..)
            .take_while(|level| has(&format!("up_blocks.{level}.")))
            .count();
        let attends = (0..levels).map(|level| has(&format!("up_blocks.{level}.attentions.")));
        (layers > 0).then(|| Self {
            layers,
            attends: attends.collect(),
        })
    }

    fn name(&self, path: &str) -> Option<String> {
        const REST: [(&str, &str); 8] = [
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("time_embedding.cond_proj", "time_embed.cond_proj"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ];
        if let Some((_, original)) = REST.iter().find(|(name, _)| *name == path) {
            return Some((*original).to_owned());
        }
        let (block, rest) = path.split_once('.')?;
        if block == "mid_block" {
            return match rest.split_once(".0.").or_else(|| rest.split_once(".1."))? {
                ("attentions", rest) => Some(format!("middle_block.1.{rest}")),
                ("resnets", inside) if rest.starts_with("resnets.0") => {
                    Some(format!("middle_block.0.{}", residual(inside)?))
                }
                ("resnets", inside) => Some(format!("middle_block.2.{}", residual(inside)?)),
                _ => None,
            };
        }
        let mut words = rest.splitn(4, '.');
        let level: usize = words.next()?.parse().ok()?;
        let kind = words.next()?;
        let layer: usize = words.next()?.parse().ok()?;
        let inside = words.next()?;
        let first = level * (self.layers + 1);
        match (block, kind) {
            ("down_blocks", "resnets") => Some(format!(
                "input_blocks.{}.0.{}",
                first + 1 + layer,
                residual(inside)?
            )),
            ("down_blocks", "attentions") => Some(format!("input_blocks.{}.1.{inside}", first + 1 + layer)),
            ("down_blocks", "downsamplers") => Some(format!("input_blocks.{}.0.op", first + self.layers + 1)),
            ("up_blocks", "resnets") => {
                Some(format!("output_blocks.{}.0.{}", first + layer, residual(inside)?))
            }
            ("up_blocks", "attentions") => Some(format!("output_blocks.{}.1.{inside}", first + layer)),
            ("up_blocks", "upsamplers") => {
                let place = if *self.attends.get(level)? { 2 } else { 1 };
                Some(format!("output_blocks.{}.{place}.conv", first + self.layers))
            }
            _ => None,
        }
    }
}

/// What is inside a residual block.
fn residual(name: &str) -> Option<&'static str> {
    Some(match name {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        _ => return None,
    })
}

/// The layers of a network in the order of cloneofsimo/lora (`lora_diffusion/lora.py`), which counts the linear layers of
/// `CrossAttention`, `Attention` and `GEGLU`, or of `CLIPAttention`, as the modules of that time came: the way up before
/// the middle, and the feed-forward before the second attention.
fn numbered(targets: &[(LoraNetwork, &LoraTarget)], network: LoraNetwork) -> Vec<usize> {
    const IN_UNET: [&str; 9] = [
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out.0",
        "ff.net.0.proj",
        "attn2.to_q",
        "attn2.to_k",
        "attn2.to_v",
        "attn2.to_out.0",
    ];
    const IN_TEXT: [&str; 4] = [
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.q_proj",
        "self_attn.out_proj",
    ];
    let inside: &[&str] = if network == LoraNetwork::UNet {
        &IN_UNET
    } else {
        &IN_TEXT
    };
    let mut order: Vec<_> = targets
        .iter()
        .enumerate()
        .filter(|(_, (of, _))| *of == network)
        .filter_map(|(place, (_, target))| {
            let matches = |end: &&str| {
                let before = target.name.strip_suffix(end);
                before.is_some_and(|before| before.ends_with('.'))
            };
            let layer = inside.iter().position(matches)?;
            let block = target.name.strip_suffix(inside[layer])?;
            let way =
                usize::from(block.starts_with("up_blocks")) + 2 * usize::from(block.starts_with("mid_block"));
            let numbers: Vec<usize> = block.split('.').filter_map(|word| word.parse().ok()).collect();
            Some(((way, numbers, layer), place))
        })
        .collect();
    order.sort();
    order.into_iter().map(|(_, place)| place).collect()
}
