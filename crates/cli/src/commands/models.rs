//! `pentimento models`: what the catalogue says, where the files are, and what is in them.

mod inspect;
mod list;
mod pull;
mod verify;

use std::sync::Arc;

use pentimento_catalog::{Catalog, ModelEntry, ModelKind};
use pentimento_types::ModelId;

use crate::args::{ModelsAction, ModelsArgs};
use crate::config::Config;

pub(crate) use list::{is_usable, state_of};

/// Runs one of the actions.
pub(crate) async fn run(args: &ModelsArgs, config: &Config) -> anyhow::Result<()> {
    match &args.action {
        ModelsAction::List(list) => list::run(list, config),
        ModelsAction::Pull(pull) => pull::run(pull, config).await,
        ModelsAction::Verify(verify) => verify::run(verify, config).await,
        ModelsAction::Inspect(inspect) => inspect::run(inspect, config),
    }
}

/// The entries of this name, of whatever kind.
///
/// # Errors
/// When there is none, with the names that look like it.
fn named(catalog: &Catalog, name: &str) -> anyhow::Result<Vec<Arc<ModelEntry>>> {
    let id = ModelId::new(name);
    let mut nearest = Vec::new();
    let mut found = Vec::new();
    for kind in ModelKind::ALL {
        match catalog.resolve(&id, *kind) {
            Ok(entry) => found.push(entry),
            Err(pentimento_catalog::CatalogError::NotFound { nearest: near, .. }) => nearest.extend(near),
            Err(other) => return Err(other.into()),
        }
    }
    if found.is_empty() {
        nearest.truncate(3);
        let hint = if nearest.is_empty() {
            "`pentimento models list` shows them all".to_owned()
        } else {
            format!("did you mean {}?", nearest.join(" or "))
        };
        anyhow::bail!("the catalogue has no model named `{name}`; {hint}");
    }
    Ok(found)
}

/// The entry, and of a preset the models that are used with it.
fn with_parts(catalog: &Catalog, entry: &Arc<ModelEntry>) -> Vec<Arc<ModelEntry>> {
    let mut entries = vec![Arc::clone(entry)];
    let Some(preset) = &entry.preset else {
        return entries;
    };
    let vae = preset.vae.iter().map(|name| (ModelKind::Vae, name));
    let loras = preset.loras.iter().map(|lora| (ModelKind::Lora, &lora.name));
    let embeddings = preset.embeddings.iter().map(|name| (ModelKind::Embedding, name));
    let parts = vae.chain(loras).chain(embeddings);
    entries.extend(parts.filter_map(|(kind, name)| catalog.resolve(&ModelId::new(name), kind).ok()));
    entries
}
