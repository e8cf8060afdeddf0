//! What no single file holds, with the values that each base is published with: the scheduler, how texts are padded, and what
//! stands for a missing negative prompt.

use serde_json::{Value, json};

use super::Part;
use super::base::Base;

/// `scheduler/scheduler_config.json` of Stable Diffusion 1.5.
#[must_use]
pub fn scheduler_config() -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "clip_sample": false,
    })
}

/// `scheduler/scheduler_config.json` of a checkpoint with this UNet. `has` says whether the file has a tensor of a name.
pub(super) fn of_scheduler(base: Base, unet: &Part<'_>, has: impl Fn(&str) -> bool) -> Value {
    let mut config = scheduler_config();
    let mut set = |key: &str, value: Value| config[key] = value;
    match base {
        Base::Sd1 => {}
        // 2.0 and 2.1 predict the velocity; of those with 9 channels the published one predicts the noise. The smaller
        // `-base` models predict the noise, too, but are of the same shapes: an entry has to say so.
        Base::Sd2 if unet.size("input_blocks.0.0.weight", 1) == Some(4) => {
            set("_class_name", json!("DDIMScheduler"));
            set("prediction_type", json!("v_prediction"));
        }
        Base::Sd2 => {}
        Base::Sdxl => {
            set("_class_name", json!("EulerDiscreteScheduler"));
            set("timestep_spacing", json!("leading"));
            set("interpolation_type", json!("linear"));
        }
    }
    // Distilled latent consistency models (`latent-consistency/lcm-sdxl` and its like).
    if unet.shape("time_embed.cond_proj.weight").is_some() {
        set("_class_name", json!("LCMScheduler"));
        set("original_inference_steps", json!(50));
        set("set_alpha_to_one", json!(true));
        set("timestep_scaling", json!(10.0));
    }
    // Marks that trainers of SDXL leave in their files.
    if has("v_pred") {
        set("prediction_type", json!("v_prediction"));
    }
    if has("ztsnr") {
        set("rescale_betas_zero_snr", json!(true));
    }
    config
}

/// `model_index.json`.
pub(super) fn model_index(base: Base) -> Value {
    match base {
        Base::Sd1 | Base::Sd2 => json!({"_class_name": "StableDiffusionPipeline"}),
        Base::Sdxl => {
            json!({"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true})
        }
    }
}

/// `special_tokens_map.json` of a tokenizer for OpenCLIP, which pads by the token 0 and not by the end token.
pub(super) fn padded_by_zero() -> Value {
    json!({"pad_token": "!"})
}
