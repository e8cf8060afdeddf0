//! Presets: a checkpoint with what is used together with it, under one name.

use super::*;
use crate::{LoraInPreset, ModelPrecision, Prediction, Preset, SchedulerSettings, TimestepSpacing};

const PRESET: &str = r#"
[[model]]
name       = "base"
kind       = "checkpoint"
source     = "hf:owner/repo"
variant    = "fp16"
base       = "sd2"
prediction = "v_prediction"
precision  = "bf16"
keep_alive = "10m"

[model.scheduler]
timestep_spacing = "trailing"

[[model]]
name       = "quick-base"
kind       = "checkpoint"
checkpoint = "base.safetensors"
vae        = "sharp"
loras      = [{ name = "quick" }, { name = "detail", strength = -0.5 }]
embeddings = ["bad-hands"]
pinned     = true

[model.scheduler]
name      = "LCMScheduler"
timesteps = [999, 749, 499, 249]

[[model]]
name   = "quick"
kind   = "lora"
source = "quick.safetensors"
[[model]]
name   = "detail"
kind   = "lora"
source = "detail.safetensors"
[[model]]
name   = "sharp"
kind   = "vae"
source = "sharp"
[[model]]
name   = "bad-hands"
kind   = "embedding"
source = "bad-hands.pt"
"#;

#[test]
fn a_preset_has_the_files_of_its_checkpoint_and_parts_of_its_own() {
    let catalog = read(PRESET).unwrap();
    let [base, preset, ..] = catalog.entries() else {
        panic!("six entries")
    };
    assert_eq!((&base.preset, base.pinned), (&None, false));
    assert_eq!(preset.source, base.source);
    assert_eq!(preset.variant.as_deref(), Some("fp16"));
    assert_eq!(preset.base, Some(BaseModel::Sd2));
    assert_eq!(preset.prediction, Some(Prediction::Velocity));
    assert_eq!(preset.precision, Some(ModelPrecision::Bf16));
    assert_eq!(preset.keep_alive, Some(std::time::Duration::from_secs(600)));
    assert!(preset.pinned);
    assert_eq!(
        preset.scheduler,
        SchedulerSettings {
            kind: Some(pentimento_types::SchedulerKind::LCM),
            spacing: Some(TimestepSpacing::Trailing),
            timesteps: Some(vec![999, 749, 499, 249]),
        }
    );
    let lora = |name: &str, strength| LoraInPreset {
        name: name.to_owned(),
        strength,
    };
    assert_eq!(
        preset.preset,
        Some(Preset {
            checkpoint: Some("base.safetensors".to_owned()),
            vae: Some("sharp".to_owned()),
            loras: vec![lora("quick", 1.0), lora("detail", -0.5)],
            embeddings: vec!["bad-hands".to_owned()],
        })
    );
}

#[test]
fn a_preset_of_nothing_or_of_a_preset_is_a_fault() {
    for (from, to, expected) in [
        (
            "\"base.safetensors\"",
            "\"bass\"",
            "line 15, model `quick-base`: its checkpoint is `bass`, which no entry",
        ),
        (
            "\"base.safetensors\"",
            "\"quick-base\"",
            "its checkpoint `quick-base` has no files of its own",
        ),
        (
            "[\"bad-hands\"]",
            "[\"detail\"]",
            "it uses the embedding `detail`, which no entry of this file describes",
        ),
    ] {
        let found = faults(&PRESET.replace(from, to));
        assert!(found.contains(expected), "{found}");
    }
}
