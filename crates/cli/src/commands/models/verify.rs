//! `pentimento models verify`: whether the files are those that the catalogue means, and can be read.

use std::path::Path;
use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_engine::ResolvedModels;
use pentimento_hub::{Found, Hub};
use pentimento_pipeline::StableDiffusion;
use pentimento_types::describe_chain;
use pentimento_weights::{WeightsKind, kind_of};

use super::inspect::described;
use super::names::named;
use crate::args::ModelsVerifyArgs;
use crate::commands::fetch::fetch;
use crate::config::Config;
use crate::{assemble, output};

/// Looks at the named models, or at all whose files are here. Fetches nothing.
pub(crate) async fn run(args: &ModelsVerifyArgs, config: &Config) -> anyhow::Result<()> {
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    let mut entries: Vec<Arc<ModelEntry>> = Vec::new();
    for name in &args.names {
        entries.extend(named(&catalog, name)?);
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
    if entry.kind != ModelKind::Checkpoint {
        if let Source::Path(path) = &located.source {
            check_kind(entry.kind, path)?;
        }
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

/// Whether a file is what its entry says. Folders of VAEs, image encoders, safety checkers and prompt enhancers are looked at when they are used.
fn check_kind(kind: ModelKind, path: &Path) -> Result<(), String> {
    if path.is_dir()
        && matches!(
            kind,
            ModelKind::Vae | ModelKind::ImageEncoder | ModelKind::SafetyChecker | ModelKind::PromptEnhancer
        )
    {
        return Ok(());
    }
    let about = kind_of(path).map_err(|error| describe_chain(&error))?;
    let is_right = match kind {
        ModelKind::Lora => matches!(about.kind, WeightsKind::Lora(_)),
        ModelKind::Embedding => matches!(about.kind, WeightsKind::Embedding(_)),
        ModelKind::Vae => matches!(about.kind, WeightsKind::Vae | WeightsKind::TinyAutoencoder),
        ModelKind::IpAdapter => matches!(about.kind, WeightsKind::IpAdapter(Some(_))),
        ModelKind::Upscaler => matches!(about.kind, WeightsKind::Upscaler(Some(_))),
        ModelKind::Checkpoint
        | ModelKind::ImageEncoder
        | ModelKind::SafetyChecker
        | ModelKind::PromptEnhancer => true,
    };
    if is_right {
        Ok(())
    } else {
        Err(format!(
            "it is {}, and its entry says {kind}",
            described(&about.kind)
        ))
    }
}
