//! `pentimento models verify`: whether the files are those that the catalogue means, and can be read.

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_engine::ResolvedModels;
use pentimento_hub::{Found, Hub};
use pentimento_pipeline::StableDiffusion;
use pentimento_types::describe_chain;
use pentimento_weights::{EmbeddingFile, LoraFile};

use crate::args::ModelsVerifyArgs;
use crate::commands::fetch::fetch;
use crate::config::Config;
use crate::{assemble, output};

/// Looks at the named models, or at all whose files are here. Fetches nothing.
pub(crate) async fn run(args: &ModelsVerifyArgs, config: &Config) -> anyhow::Result<()> {
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    let mut entries: Vec<Arc<ModelEntry>> = Vec::new();
    for name in &args.names {
        entries.extend(super::named(&catalog, name)?);
    }
    let all = args.names.is_empty();
    if all {
        entries = catalog.entries().to_vec();
    }
    let mut wrong = 0;
    for entry in &entries {
        let found = hub.look(entry);
        if all && matches!(found, Found::Absent) {
            continue;
        }
        let verdict = match verify(&hub, entry, &found).await {
            Ok(what) => what.to_owned(),
            Err(problem) => {
                wrong += 1;
                format!("WRONG: {problem}")
            }
        };
        output::line(format_args!("{} `{}`: {verdict}", entry.kind, entry.name));
    }
    anyhow::ensure!(wrong == 0, "{wrong} of {} models cannot be used", entries.len());
    Ok(())
}

async fn verify(hub: &Hub, entry: &Arc<ModelEntry>, found: &Found) -> Result<&'static str, String> {
    let located = match found {
        Found::Ready(located) => Arc::clone(located),
        Found::Unchecked => fetch(hub, entry).await.map_err(|error| error.to_string())?,
        Found::Absent => {
            return Err("its files are not here; `pentimento models pull` fetches them".to_owned());
        }
        Found::Wrong(error) => return Err(error.to_string()),
        Found::Unavailable(reason) => return Err(reason.to_string()),
    };
    let mut compared = entry.sha256.is_some();
    if let (Source::HuggingFace { .. }, Source::Path(place)) = (&entry.source, &located.source) {
        let (hub, place) = (hub.clone(), place.clone());
        let files = tokio::task::spawn_blocking(move || hub.compare_with_names(&place)).await;
        let files = files.map_err(|error| error.to_string())?;
        compared |= files.map_err(|error| error.to_string())? > 0;
    }
    let read = match (entry.kind, &located.source) {
        (ModelKind::Checkpoint, _) => None,
        (ModelKind::Lora, Source::Path(path)) => Some(LoraFile::open(path).map(|_| ())),
        (ModelKind::Embedding, Source::Path(path)) => Some(EmbeddingFile::open(path).map(|_| ())),
        _ => Some(Ok(())),
    };
    if let Some(read) = read {
        read.map_err(|error| describe_chain(&error))?;
        return Ok(if compared {
            "its sha256 is right"
        } else {
            "its files are there"
        });
    }
    let models = ResolvedModels::checkpoint(located);
    let read = tokio::task::spawn_blocking(move || StableDiffusion::load_on_cpu(&models).map(|_| ()));
    match read.await {
        Ok(Ok(())) if compared => Ok("its sha256 is right, and all of it can be read"),
        Ok(Ok(())) => Ok("all of it can be read"),
        Ok(Err(error)) => Err(describe_chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}
