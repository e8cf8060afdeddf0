//! The UNet's `config.json`. What we do not build is refused here, by the field's name.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::{OneOrMany, divides, only};

/// Sizes of a UNet. Absent keys have diffusers' defaults; unknown keys are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawConfig")]
#[non_exhaustive]
pub struct UNetConfig {
    /// Channels of the input: 4, or 9 for inpainting checkpoints.
    pub in_channels: usize,
    /// Channels of the prediction: 4.
    pub out_channels: usize,
    /// Width of each level, outermost first.
    pub block_out_channels: Vec<usize>,
    /// Width D of the text's hidden states.
    pub cross_attention_dim: usize,
    /// Length E of the guidance embedding, in distilled checkpoints that take one.
    pub time_cond_proj_dim: Option<usize>,
    /// What the network takes for a row beside token states: none but in SDXL.
    pub text_time: Option<TextTime>,
    /// Size of the latents this network was trained on, where the file says so: 64.
    pub sample_size: Option<usize>,
    pub(crate) layers_per_block: Vec<usize>,
    /// Whether each level has attention, outermost first; the two directions may differ.
    pub(crate) down_attention: Vec<bool>,
    pub(crate) up_attention: Vec<bool>,
    /// Number of heads of each level. Files call it `attention_head_dim`, by an old mistake (diffusers #2011).
    pub(crate) heads: Vec<usize>,
    pub(crate) transformer_layers: Vec<usize>,
    pub(crate) use_linear_projection: bool,
    pub(crate) norm_num_groups: usize,
    pub(crate) norm_eps: f64,
    pub(crate) flip_sin_to_cos: bool,
    pub(crate) freq_shift: f64,
    pub(crate) downsample_padding: usize,
    pub(crate) time_embed_dim: usize,
}

/// `addition_embed_type` "text_time": the pooled state of the text and six size conditions, embedded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTime {
    /// Width P of the pooled state: 1280.
    pub pooled: usize,
    /// Length of the embedding of each size condition: 256.
    pub(crate) size_dim: usize,
}

impl TextTime {
    /// Width of what is embedded: 2816.
    pub(crate) fn width(self) -> usize {
        self.pooled + SIZE_CONDITIONS * self.size_dim
    }
}

/// Original size, crop and target size.
const SIZE_CONDITIONS: usize = 6;

impl UNetConfig {
    pub(crate) fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// The cross-attentions in the order in which they run: the number that IP-Adapter files have for each, and its width.
    ///
    /// Those files count self-attentions, too, and go by the order in which diffusers lists the blocks: down, up, middle.
    #[must_use]
    pub fn ip_adapter_layers(&self) -> Vec<(usize, usize)> {
        let last = self.levels() - 1;
        let of_level = |level: usize, blocks: usize| {
            let count = blocks * self.transformer_layers[level];
            std::iter::repeat_n(self.block_out_channels[level], count)
        };
        let down = (0..=last).filter(|level| self.down_attention[*level]);
        let down: Vec<usize> = down
            .flat_map(|level| of_level(level, self.layers_per_block[level]))
            .collect();
        let up = (0..=last)
            .rev()
            .zip(&self.up_attention)
            .filter(|(_, there)| **there);
        let up: Vec<usize> = up
            .flat_map(|(level, _)| of_level(level, self.layers_per_block[level] + 1))
            .collect();
        let down_and_up = down.len() + up.len();
        let number = |place: usize| 2 * place + 1;
        let mid = of_level(last, 1).enumerate();
        let mid = mid.map(|(i, width)| (number(down_and_up + i), width));
        let before = down.len();
        let up = up
            .into_iter()
            .enumerate()
            .map(|(i, width)| (number(before + i), width));
        let down = down.into_iter().enumerate().map(|(i, width)| (number(i), width));
        down.chain(mid).chain(up).collect()
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default = "four")]
    in_channels: usize,
    #[serde(default = "four")]
    out_channels: usize,
    #[serde(default = "block_out_channels")]
    block_out_channels: Vec<usize>,
    #[serde(default = "layers_per_block")]
    layers_per_block: OneOrMany,
    #[serde(default = "down_block_types")]
    down_block_types: Vec<String>,
    #[serde(default = "up_block_types")]
    up_block_types: Vec<String>,
    #[serde(default = "cross_attention_dim")]
    cross_attention_dim: OneOrMany,
    #[serde(default = "attention_head_dim")]
    attention_head_dim: OneOrMany,
    #[serde(default = "transformer_layers_per_block")]
    transformer_layers_per_block: OneOrMany,
    #[serde(default)]
    use_linear_projection: bool,
    #[serde(default = "norm_num_groups")]
    norm_num_groups: usize,
    #[serde(default = "norm_eps")]
    norm_eps: f64,
    #[serde(default = "flip_sin_to_cos")]
    flip_sin_to_cos: bool,
    #[serde(default)]
    freq_shift: f64,
    #[serde(default = "downsample_padding")]
    downsample_padding: usize,
    time_embedding_dim: Option<usize>,
    time_cond_proj_dim: Option<usize>,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    sample_size: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

// diffusers' UNet2DConditionModel.
fn four() -> usize {
    4
}
fn block_out_channels() -> Vec<usize> {
    vec![320, 640, 1280, 1280]
}
fn layers_per_block() -> OneOrMany {
    OneOrMany::One(2)
}
fn down_block_types() -> Vec<String> {
    let names = [
        WITH_ATTENTION_DOWN,
        WITH_ATTENTION_DOWN,
        WITH_ATTENTION_DOWN,
        PLAIN_DOWN,
    ];
    names.map(str::to_owned).to_vec()
}
fn up_block_types() -> Vec<String> {
    let names = [PLAIN_UP, WITH_ATTENTION_UP, WITH_ATTENTION_UP, WITH_ATTENTION_UP];
    names.map(str::to_owned).to_vec()
}
fn cross_attention_dim() -> OneOrMany {
    OneOrMany::One(1280)
}
fn attention_head_dim() -> OneOrMany {
    OneOrMany::One(8)
}
fn transformer_layers_per_block() -> OneOrMany {
    OneOrMany::One(1)
}
fn norm_num_groups() -> usize {
    32
}
fn norm_eps() -> f64 {
    1e-5
}
fn flip_sin_to_cos() -> bool {
    true
}
fn downsample_padding() -> usize {
    1
}

const WITH_ATTENTION_DOWN: &str = "CrossAttnDownBlock2D";
const PLAIN_DOWN: &str = "DownBlock2D";
const WITH_ATTENTION_UP: &str = "CrossAttnUpBlock2D";
const PLAIN_UP: &str = "UpBlock2D";

/// Fields whose only supported value is the library's default.
fn fixed_fields() -> [(&'static str, Value); 20] {
    [
        ("center_input_sample", json!(false)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("only_cross_attention", json!(false)),
        ("mid_block_only_cross_attention", json!(false)),
        ("mid_block_scale_factor", json!(1)),
        ("act_fn", json!("silu")),
        ("reverse_transformer_layers_per_block", Value::Null),
        ("encoder_hid_dim_type", Value::Null),
        ("num_attention_heads", Value::Null),
        ("dual_cross_attention", json!(false)),
        ("class_embed_type", Value::Null),
        ("num_class_embeds", Value::Null),
        ("resnet_time_scale_shift", json!("default")),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
        ("time_embedding_type", json!("positional")),
        ("time_embedding_act_fn", Value::Null),
        ("timestep_post_act", Value::Null),
        ("attention_type", json!("default")),
        ("cross_attention_norm", Value::Null),
    ]
}

impl TryFrom<RawConfig> for UNetConfig {
    type Error = String;

    fn try_from(raw: RawConfig) -> Result<Self, String> {
        for (field, supported) in &fixed_fields() {
            only(field, raw.rest.get(*field), supported)?;
        }
        for field in ["conv_in_kernel", "conv_out_kernel"] {
            only(field, raw.rest.get(field), &json!(3))?;
        }
        let widths = raw.block_out_channels;
        let levels = widths.len();
        divides(raw.norm_num_groups, "norm_num_groups", &widths)?;
        let down_attention = kinds(
            "down_block_types",
            &raw.down_block_types,
            [WITH_ATTENTION_DOWN, PLAIN_DOWN],
        )?;
        let up_attention = kinds(
            "up_block_types",
            &raw.up_block_types,
            [WITH_ATTENTION_UP, PLAIN_UP],
        )?;
        if down_attention.len() != levels || up_attention.len() != levels {
            return Err(
                "`down_block_types`, `up_block_types` and `block_out_channels` differ in length".to_owned(),
            );
        }
        let heads = raw.attention_head_dim.per_level("attention_head_dim", levels)?;
        for (heads, width) in heads.iter().zip(&widths) {
            divides(*heads, "attention_head_dim", &[*width])?;
        }
        let context = raw.cross_attention_dim.per_level("cross_attention_dim", levels)?;
        if context.iter().any(|width| *width != context[0]) {
            return Err("`cross_attention_dim` differs between levels, which is not supported".to_owned());
        }
        if raw.in_channels == 0 || raw.out_channels == 0 || raw.downsample_padding > 1 {
            return Err("`in_channels`, `out_channels` or `downsample_padding` is out of range".to_owned());
        }
        let text_time = text_time(
            raw.addition_embed_type.as_deref(),
            raw.addition_time_embed_dim,
            raw.projection_class_embeddings_input_dim,
        )?;
        Ok(Self {
            text_time,
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            cross_attention_dim: context[0],
            time_cond_proj_dim: raw.time_cond_proj_dim,
            sample_size: raw
                .sample_size
                .as_ref()
                .and_then(Value::as_u64)
                .and_then(|n| n.try_into().ok()),
            layers_per_block: raw.layers_per_block.per_level("layers_per_block", levels)?,
            down_attention,
            up_attention,
            heads,
            transformer_layers: raw
                .transformer_layers_per_block
                .per_level("transformer_layers_per_block", levels)?,
            use_linear_projection: raw.use_linear_projection,
            norm_num_groups: raw.norm_num_groups,
            norm_eps: raw.norm_eps,
            flip_sin_to_cos: raw.flip_sin_to_cos,
            freq_shift: raw.freq_shift,
            downsample_padding: raw.downsample_padding,
            time_embed_dim: raw.time_embedding_dim.unwrap_or(widths[0] * 4),
            block_out_channels: widths,
        })
    }
}

/// What `addition_embed_type` and the two sizes that belong to it say.
fn text_time(
    kind: Option<&str>,
    size_dim: Option<usize>,
    width: Option<usize>,
) -> Result<Option<TextTime>, String> {
    match (kind, size_dim, width) {
        (None, ..) => Ok(None),
        (Some("text_time"), Some(size_dim), Some(width)) => {
            let sizes = size_dim.saturating_mul(SIZE_CONDITIONS);
            match width.checked_sub(sizes) {
                Some(pooled) if pooled > 0 && size_dim > 0 => Ok(Some(TextTime { pooled, size_dim })),
                _ => Err(format!(
                    "`projection_class_embeddings_input_dim` {width} leaves no pooled state beside \
                     {SIZE_CONDITIONS} sizes of `addition_time_embed_dim` {size_dim}"
                )),
            }
        }
        (Some("text_time"), ..) => Err(
            "`addition_embed_type` text_time needs `addition_time_embed_dim` and \
             `projection_class_embeddings_input_dim`"
                .to_owned(),
        ),
        (Some(other), ..) => Err(format!(
            "`addition_embed_type` is \"{other}\", only \"text_time\" is supported"
        )),
    }
}

/// Whether each block has attention, or an error that names the first block of another kind.
fn kinds(field: &str, found: &[String], [attention, plain]: [&str; 2]) -> Result<Vec<bool>, String> {
    let kind = |name: &String| match name.as_str() {
        name if name == attention => Ok(true),
        name if name == plain => Ok(false),
        other => Err(format!(
            "`{field}` has \"{other}\", only \"{attention}\" and \"{plain}\" are supported"
        )),
    };
    found.iter().map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the published files: 16 layers with the middle block's as 31, and 70 of SDXL.
    #[test]
    fn layers_of_ip_adapters_are_numbered_down_up_and_middle() {
        let sd15: UNetConfig = serde_json::from_value(json!({"cross_attention_dim": 768})).unwrap();
        let layers = sd15.ip_adapter_layers();
        assert_eq!(layers.len(), 16);
        assert_eq!(
            layers[..7],
            [
                (1, 320),
                (3, 320),
                (5, 640),
                (7, 640),
                (9, 1280),
                (11, 1280),
                (31, 1280)
            ]
        );
        assert_eq!(layers[7..10], [(13, 1280), (15, 1280), (17, 1280)]);
        assert_eq!(layers[15], (29, 320));
        let sdxl: UNetConfig = serde_json::from_value(json!({
            "block_out_channels": [320, 640, 1280],
            "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10],
            "down_block_types": [PLAIN_DOWN, WITH_ATTENTION_DOWN, WITH_ATTENTION_DOWN],
            "up_block_types": [WITH_ATTENTION_UP, WITH_ATTENTION_UP, PLAIN_UP],
        }))
        .unwrap();
        let layers = sdxl.ip_adapter_layers();
        assert_eq!(layers.len(), 70);
        assert_eq!((layers[0], layers[4]), ((1, 640), (9, 1280)));
        assert_eq!((layers[24], layers[33]), ((121, 1280), (139, 1280)));
        assert_eq!((layers[34], layers[69]), ((49, 1280), (119, 640)));
    }
}
