//! A preset is its checkpoint with what stands in its entry, before what the request names.

use pentimento_types::{LoraRef, ModelId};
use tempfile::TempDir;

use super::*;
use crate::{Catalog, ModelRole};

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
name   = "sketch"
kind   = "embedding"
source = "hf:somebody/sketch"
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
    let resolved = test.service.inner.resolve_models(&recipe).await;
    resolved.map(|(models, _)| models)
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
async fn a_lora_is_applied_once_however_it_is_spelt() {
    let (test, _folder) = service();
    for (model, loras) in [("base", &["ink", "ink.safetensors"][..]), ("painted", &["paint"])] {
        let refused = resolved(&test, model, loras).await;
        assert!(
            matches!(
                refused,
                Err(ServiceError::ModelTwice {
                    role: ModelRole::Lora,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_word_refuses_nothing_where_its_embedding_is_not_here() {
    let (test, _folder) = service();
    let mut recipe = sample_request("x").recipe;
    recipe.model = ModelId::new("base");
    recipe.prompt = "a house in sketch".to_owned();
    let (models, notes) = test.service.inner.resolve_models(&recipe).await.unwrap();
    assert!(models.embeddings.is_empty());
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.to_string().contains("embedding sketch"), "{note}");
    recipe.embeddings.push(pentimento_types::EmbeddingRef {
        model: ModelId::new("sketch"),
    });
    let named = test.service.inner.resolve_models(&recipe).await;
    assert!(
        matches!(
            named,
            Err(ServiceError::ModelUnavailable {
                role: ModelRole::Embedding,
                ..
            })
        ),
        "{named:?}"
    );
}

#[test]
fn an_lcm_lora_is_added_where_nothing_named_is_distilled() {
    let text = format!(
        "{}{}",
        MODELS.replace("role   = \"lcm\"", ""),
        r#"
[[model]]
name   = "fast"
kind   = "lora"
source = "fast.safetensors"
role   = "lcm"

[[model]]
name   = "turbo"
kind   = "lora"
source = "turbo.safetensors"

[model.scheduler]
timesteps = [999, 499]
"#
    );
    let catalog = Catalog::from_text(&text, std::path::Path::new("models.toml")).unwrap();
    let may_need = |lora: &str| {
        let mut recipe = sample_request("x").recipe;
        recipe.model = ModelId::new("base");
        recipe.scheduler.strength_rule = pentimento_types::StrengthRule::LowerStart;
        recipe.loras = vec![LoraRef {
            model: ModelId::new(lora),
            strength: 1.0,
        }];
        let named = crate::NamedModels::of(&catalog, &recipe).unwrap();
        named.may_need_lcm_lora(&recipe)
    };
    assert!(may_need("ink"));
    assert!(!may_need("fast"), "it would be applied twice");
    assert!(!may_need("turbo"), "it is another distillation");
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
    let (models, _) = test.service.inner.resolve_models(&recipe).await.unwrap();
    assert_eq!(vae(models).as_deref(), Some("other"));
}
