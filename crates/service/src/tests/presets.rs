//! A preset is its checkpoint with what stands in its entry, before what the request names.

use pentimento_types::{LoraRef, ModelId};
use tempfile::TempDir;

use super::*;
use crate::Catalog;

const MODELS: &str = r#"
[[model]]
name   = "base"
kind   = "checkpoint"
source = "embedded:demo"
role   = "lcm"

[[model]]
name       = "painted"
kind       = "checkpoint"
checkpoint = "base"
loras      = [{ name = "paint", strength = 0.5 }, { name = "nothing", strength = 0 }]

[[model]]
name       = "quick"
kind       = "checkpoint"
checkpoint = "base"

[model.scheduler]
timestep_spacing = "trailing"

[[model]]
name       = "sharp"
kind       = "checkpoint"
checkpoint = "base"
vae        = "clear"

[[model]]
name   = "paint"
kind   = "lora"
source = "paint.safetensors"
[[model]]
name   = "ink"
kind   = "lora"
source = "ink.safetensors"
[[model]]
name   = "nothing"
kind   = "lora"
source = "not-there.safetensors"
[[model]]
name   = "other"
kind   = "vae"
source = "ink.safetensors"
[[model]]
name   = "clear"
kind   = "vae"
source = "paint.safetensors"
"#;

fn service() -> (TestService, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for file in ["paint.safetensors", "ink.safetensors"] {
        fs_err::write(folder.path().join(file), "weights").unwrap();
    }
    let catalog = Catalog::from_text(MODELS, &folder.path().join("models.toml")).unwrap();
    let config = TestConfig {
        catalog,
        ..TestConfig::default()
    };
    (TestService::start_with(FakeExecutor::new(), config), folder)
}

async fn resolved(test: &TestService, model: &str, loras: &[&str]) -> Result<ResolvedModels, ServiceError> {
    let mut recipe = sample_request("x").recipe;
    recipe.model = ModelId::new(model);
    recipe.loras = loras
        .iter()
        .map(|name| LoraRef {
            model: ModelId::new(*name),
            strength: 1.5,
        })
        .collect();
    test.service.inner.resolve_models(&recipe).await
}

#[tokio::test]
async fn a_presets_loras_come_before_those_of_the_request() {
    let (test, _folder) = service();
    let models = resolved(&test, "painted.safetensors", &["ink"]).await.unwrap();
    assert_eq!(
        models.checkpoint.name, "base",
        "jobs of both share their forwards"
    );
    let loras: Vec<(&str, f64)> = models
        .loras
        .iter()
        .map(|(entry, strength)| (entry.name.as_str(), *strength))
        .collect();
    assert_eq!(
        loras,
        [("paint", 0.5), ("ink", 1.5)],
        "at strength 0 a file is not needed"
    );
    let plain = resolved(&test, "base", &[]).await.unwrap();
    assert!(plain.loras.is_empty());
}

#[tokio::test]
async fn a_preset_that_runs_in_its_own_way_is_a_model_of_its_own() {
    let (test, _folder) = service();
    let models = resolved(&test, "quick", &[]).await.unwrap();
    assert_eq!(models.checkpoint.name, "quick");
    assert_eq!(
        models.checkpoint.source,
        resolved(&test, "base", &[]).await.unwrap().checkpoint.source
    );
    assert!(models.checkpoint.scheduler.spacing.is_some());
}

#[tokio::test]
async fn a_presets_vae_is_used_unless_the_request_names_one() {
    let (test, _folder) = service();
    let vae = |models: ResolvedModels| models.vae.map(|entry| entry.name.clone());
    let models = resolved(&test, "sharp", &[]).await.unwrap();
    assert_eq!(vae(models).as_deref(), Some("clear"));
    let mut recipe = sample_request("x").recipe;
    recipe.model = ModelId::new("sharp");
    recipe.vae = Some(ModelId::new("other"));
    let models = test.service.inner.resolve_models(&recipe).await.unwrap();
    assert_eq!(vae(models).as_deref(), Some("other"));
}
