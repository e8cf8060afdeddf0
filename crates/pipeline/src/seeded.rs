//! Checkpoints with seeded random weights of true shapes: what they compute is noise, but how long it takes is real.
//!
//! Every tensor is asked for by the real constructors and answered from a seed, so no shape is written twice.
//! Used by `pentimento bench` and by tests that need a model and not a picture.

use candle_core::Device;
use pentimento_weights::Checkpoint;
use serde_json::{Value, json};

use crate::{PipelineError, StableDiffusion};

/// Which shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Stable Diffusion 1.5: 860 million parameters in the UNet, 84 in the VAE, 123 in the text encoder.
    Sd15,
    /// The same blocks at width 32: loads in milliseconds.
    Tiny,
}

/// Builds a checkpoint of the given shapes on `device`; the same seed gives the same weights everywhere.
///
/// # Errors
/// When memory for a tensor cannot be had.
pub fn stable_diffusion(shape: Shape, seed: u64, device: &Device) -> Result<StableDiffusion, PipelineError> {
    let (name, unet, vae, text) = match shape {
        Shape::Sd15 => (
            "sd15",
            sd15_unet(),
            vae(&[128, 256, 512, 512], 32, 2),
            sd15_text(),
        ),
        Shape::Tiny => ("tiny", tiny_unet(), vae(&[16, 16, 32, 32], 8, 1), tiny_text()),
    };
    let mut files = vec![
        file("unet/config.json", &unet),
        file("vae/config.json", &vae),
        file("text_encoder/config.json", &text),
        file("scheduler/scheduler_config.json", &scheduler()),
    ];
    for path in pentimento_demo_model::paths().filter(|path| path.starts_with("tokenizer/")) {
        if let Some(Ok(bytes)) = pentimento_demo_model::read(path) {
            files.push((path.to_owned(), bytes));
        }
    }
    let checkpoint = Checkpoint::seeded_random(format!("seeded:{name}"), files, seed);
    StableDiffusion::from_checkpoint(name, checkpoint, device)
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

/// `scheduler/scheduler_config.json` of Stable Diffusion 1.5.
fn scheduler() -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "clip_sample": false,
    })
}
