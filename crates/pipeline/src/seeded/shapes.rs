//! The configurations of the seeded networks, and the tokenizer that they share.

use pentimento_weights::scheduler_config;
use serde_json::{Value, json};

/// Which shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Stable Diffusion 1.5: 860 million parameters in the UNet, 84 in the VAE, 123 in the text encoder.
    Sd15,
    /// The same blocks at width 32: loads in milliseconds.
    Tiny,
    /// Stable Diffusion XL: 2.6 thousand million parameters in the UNet, 84 million in the VAE, 123 and 695 in the text encoders.
    Sdxl,
    /// The same blocks at width 16.
    TinySdxl,
}

impl Shape {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sd15 => "sd15",
            Self::Tiny => "tiny",
            Self::Sdxl => "sdxl",
            Self::TinySdxl => "tiny-sdxl",
        }
    }

    pub(super) const fn has_two_encoders(self) -> bool {
        match self {
            Self::Sd15 | Self::Tiny => false,
            Self::Sdxl | Self::TinySdxl => true,
        }
    }
}

/// Everything but the weights, by its path in the diffusers layout.
pub(super) fn files(shape: Shape) -> Vec<(String, Vec<u8>)> {
    let (unet, mut vae, text) = match shape {
        Shape::Sd15 => (sd15_unet(), vae(&[128, 256, 512, 512], 32, 2), sd15_text()),
        Shape::Tiny => (tiny_unet(), vae(&[16, 16, 32, 32], 8, 1), tiny_text()),
        Shape::Sdxl => (sdxl_unet(), vae(&[128, 256, 512, 512], 32, 2), sd15_text()),
        Shape::TinySdxl => (tiny_sdxl_unet(), vae(&[16, 16, 32, 32], 8, 1), tiny_text()),
    };
    if shape.has_two_encoders() {
        vae["scaling_factor"] = json!(0.13025);
        vae["force_upcast"] = json!(true);
    }
    let mut files = vec![
        file("unet/config.json", &unet),
        file("vae/config.json", &vae),
        file("text_encoder/config.json", &text),
        file("scheduler/scheduler_config.json", &scheduler_config()),
    ];
    let second = match shape {
        Shape::Sd15 | Shape::Tiny => None,
        Shape::Sdxl => Some(sdxl_second_text()),
        Shape::TinySdxl => Some(tiny_second_text()),
    };
    files.extend(second.map(|config| file("text_encoder_2/config.json", &config)));
    for path in pentimento_demo_model::paths().filter(|path| path.starts_with("tokenizer/")) {
        if let Some(Ok(bytes)) = pentimento_demo_model::read(path) {
            if shape.has_two_encoders() {
                files.push((path.replace("tokenizer/", "tokenizer_2/"), bytes.clone()));
            }
            files.push((path.to_owned(), bytes));
        }
    }
    files
}

fn file(path: &str, value: &Value) -> (String, Vec<u8>) {
    (path.to_owned(), value.to_string().into_bytes())
}

/// `unet/config.json` of Stable Diffusion 1.5, without the keys that are defaults.
fn sd15_unet() -> Value {
    json!({
        "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
        "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8,
        "down_block_types":
            ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "norm_num_groups": 32, "norm_eps": 1e-5, "flip_sin_to_cos": true, "freq_shift": 0,
    })
}

fn tiny_unet() -> Value {
    let mut config = sd15_unet();
    config["layers_per_block"] = json!(1);
    config["block_out_channels"] = json!([32, 32, 64, 64]);
    config["cross_attention_dim"] = json!(32);
    config["attention_head_dim"] = json!(4);
    config["norm_num_groups"] = json!(8);
    config
}

/// `unet/config.json` of Stable Diffusion XL.
fn sdxl_unet() -> Value {
    let mut config = sd15_unet();
    config["block_out_channels"] = json!([320, 640, 1280]);
    config["cross_attention_dim"] = json!(2048);
    config["attention_head_dim"] = json!([5, 10, 20]);
    config["down_block_types"] = json!(["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]);
    config["up_block_types"] = json!(["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]);
    config["transformer_layers_per_block"] = json!([1, 2, 10]);
    config["use_linear_projection"] = json!(true);
    config["addition_embed_type"] = json!("text_time");
    config["addition_time_embed_dim"] = json!(256);
    config["projection_class_embeddings_input_dim"] = json!(1280 + 6 * 256);
    config
}

fn tiny_sdxl_unet() -> Value {
    let mut config = sdxl_unet();
    config["layers_per_block"] = json!(1);
    config["block_out_channels"] = json!([16, 16, 32]);
    config["cross_attention_dim"] = json!(32 + 24);
    config["attention_head_dim"] = json!([2, 2, 4]);
    config["norm_num_groups"] = json!(8);
    config["transformer_layers_per_block"] = json!([1, 1, 2]);
    config["addition_time_embed_dim"] = json!(8);
    config["projection_class_embeddings_input_dim"] = json!(20 + 6 * 8);
    config
}

fn vae(channels: &[u32], groups: u32, layers: u32) -> Value {
    json!({
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": layers,
        "block_out_channels": channels, "norm_num_groups": groups, "scaling_factor": 0.18215,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    })
}

fn sd15_text() -> Value {
    json!({
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5, "projection_dim": 768,
    })
}

fn tiny_text() -> Value {
    let mut config = sd15_text();
    config["hidden_size"] = json!(32);
    config["intermediate_size"] = json!(64);
    config["num_hidden_layers"] = json!(2);
    config["num_attention_heads"] = json!(4);
    config
}

/// `text_encoder_2/config.json` of Stable Diffusion XL.
fn sdxl_second_text() -> Value {
    let mut config = sd15_text();
    config["hidden_size"] = json!(1280);
    config["intermediate_size"] = json!(5120);
    config["num_hidden_layers"] = json!(32);
    config["num_attention_heads"] = json!(20);
    config["hidden_act"] = json!("gelu");
    config["projection_dim"] = json!(1280);
    config["eos_token_id"] = json!(49407);
    config
}

fn tiny_second_text() -> Value {
    let mut config = sdxl_second_text();
    config["hidden_size"] = json!(24);
    config["intermediate_size"] = json!(48);
    config["num_hidden_layers"] = json!(3);
    config["num_attention_heads"] = json!(3);
    config["projection_dim"] = json!(20);
    config
}
