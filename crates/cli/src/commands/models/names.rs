//! Which entries a name on the command line means.

use std::sync::Arc;

use pentimento_catalog::{Catalog, CatalogError, ModelEntry, ModelKind};
use pentimento_types::ModelId;

/// The entries of this name, of whatever kind.
///
/// # Errors
/// When there is none, with the names that look like it.
pub(super) fn named(catalog: &Catalog, name: &str) -> anyhow::Result<Vec<Arc<ModelEntry>>> {
    let id = ModelId::new(name);
    let mut nearest = Vec::new();
    let mut found = Vec::new();
    for kind in ModelKind::ALL {
        match catalog.resolve(&id, *kind) {
            Ok(entry) => found.push(entry),
            Err(CatalogError::NotFound { nearest: near, .. }) => nearest.extend(near),
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

/// The entry, and the models that are used with it: the parts of a preset, a checkpoint's own LCM-LoRA, an IP-Adapter's encoder.
pub(super) fn with_parts(catalog: &Catalog, entry: &Arc<ModelEntry>) -> Vec<Arc<ModelEntry>> {
    let mut entries = vec![Arc::clone(entry)];
    let encoder = entry
        .image_encoder
        .iter()
        .map(|name| (ModelKind::ImageEncoder, name));
    let lcm_lora = entry.lcm_lora.iter().map(|name| (ModelKind::Lora, name));
    let named = encoder.chain(lcm_lora);
    entries.extend(named.filter_map(|(kind, name)| catalog.resolve(&ModelId::new(name), kind).ok()));
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
