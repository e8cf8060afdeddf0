//! Tiny checkpoints of `tests/golden/models`, and requests for them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::Tensor;
use pentimento_pipeline::{Device, StableDiffusion};
use pentimento_testkit::golden_dir;
use pentimento_types::{ModelId, Recipe, RgbImage, SchedulerChoice, SchedulerKind, Size, StrengthRule};
use pentimento_weights::Checkpoint;

/// Loads `tests/golden/models/<name>`.
pub(crate) fn tiny(name: &str) -> StableDiffusion {
    tiny_on(name, &Device::Cpu)
}

/// The same on a device.
pub(crate) fn tiny_on(name: &str, device: &Device) -> StableDiffusion {
    let checkpoint = Checkpoint::open(&golden_dir().join("models").join(name)).unwrap();
    StableDiffusion::from_checkpoint(name, checkpoint, device).unwrap()
}

/// The request that a golden file's `about` describes.
pub(crate) fn request_of(about: &serde_json::Value) -> Recipe {
    let number = |key: &str| about[key].as_f64().unwrap();
    let integer = |key: &str| about[key].as_u64().unwrap();
    let text = |key: &str| about[key].as_str().unwrap().to_owned();
    Recipe {
        model: ModelId::new(text("model")),
        prompt: text("prompt"),
        negative_prompt: about["negative_prompt"].as_str().map(str::to_owned),
        steps: u32::try_from(integer("steps")).unwrap(),
        strength: number("strength"),
        guidance_scale: number("guidance_scale"),
        seed: integer("seed"),
        clip_skip: u32::try_from(integer("clip_skip")).unwrap(),
        scheduler: SchedulerChoice {
            kind: SchedulerKind::parse(&text("scheduler")),
            strength_rule: match about["strength_rule"].as_str() {
                None => StrengthRule::FewerSteps,
                Some(_) => StrengthRule::LowerStart,
            },
            ..SchedulerChoice::default()
        },
        ..request(SchedulerKind::LCM)
    }
}

/// A small request for the tiny model.
pub(crate) fn request(kind: SchedulerKind) -> Recipe {
    Recipe {
        model: ModelId::new("tiny"),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: "a lighthouse".to_owned(),
        negative_prompt: None,
        image_count: 1,
        steps: 4,
        strength: 0.5,
        guidance_scale: 1.0,
        seed: 0,
        clip_skip: 1,
        token_merging: false,
        scheduler: SchedulerChoice {
            kind: Some(kind),
            ..SchedulerChoice::default()
        },
        framing: None,
        soft_edge: 0,
        differential_diffusion: false,
        keeps_everything: false,
        ip_adapter: None,
    }
}

/// `(H, W, 3)` u8 as an image.
pub(crate) fn image_of(tensor: &Tensor) -> RgbImage {
    let (height, width, _) = tensor.dims3().unwrap();
    let size = Size {
        width: u32::try_from(width).unwrap(),
        height: u32::try_from(height).unwrap(),
    };
    RgbImage::new(size, tensor.flatten_all().unwrap().to_vec1().unwrap()).unwrap()
}
