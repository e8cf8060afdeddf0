//! `pentimento models list`: what the catalogue says, and whether the files are there.

use std::sync::Arc;

use pentimento_catalog::{BaseModel, ModelEntry};
use pentimento_hub::{Found, Hub};
use serde_json::json;

use crate::args::ModelsListArgs;
use crate::config::Config;
use crate::{assemble, output};

/// Prints the table, or one document.
pub(crate) fn run(args: &ModelsListArgs, config: &Config) -> anyhow::Result<()> {
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    if args.json {
        let entries: Vec<_> = catalog
            .entries()
            .iter()
            .map(|entry| as_json(&hub, entry))
            .collect();
        output::line(serde_json::to_string_pretty(&entries)?);
        return Ok(());
    }
    let rows: Vec<[String; 5]> = catalog
        .entries()
        .iter()
        .map(|entry| as_row(&hub, entry))
        .collect();
    for line in output::table(
        ["NAME", "KIND", "BASE", "STATE", "SOURCE"].map(str::to_owned),
        rows,
    ) {
        output::line(line);
    }
    Ok(())
}

/// Ready, or why not. Fetches nothing.
pub(crate) fn state_of(hub: &Hub, entry: &Arc<ModelEntry>) -> String {
    match hub.look(entry) {
        Found::Ready(_) => "ready".to_owned(),
        Found::Unchecked => "ready, its sha256 is compared when it is used".to_owned(),
        Found::Absent if hub.is_offline() => "not fetched, and HF_HUB_OFFLINE is set".to_owned(),
        Found::Absent => "not fetched yet".to_owned(),
        Found::Wrong(error) => error.to_string(),
        Found::Unavailable(reason) => reason.to_string(),
    }
}

/// Whether a request could use it, now or after it has been fetched.
pub(crate) fn is_usable(hub: &Hub, entry: &Arc<ModelEntry>) -> bool {
    match hub.look(entry) {
        Found::Ready(_) | Found::Unchecked => true,
        Found::Absent => !hub.is_offline(),
        Found::Wrong(_) | Found::Unavailable(_) => false,
    }
}

fn base_of(entry: &ModelEntry) -> &'static str {
    entry.base.map_or("", BaseModel::as_str)
}

fn as_row(hub: &Hub, entry: &Arc<ModelEntry>) -> [String; 5] {
    [
        entry.name.clone(),
        entry.kind.to_string(),
        base_of(entry).to_owned(),
        state_of(hub, entry),
        entry.source.to_string(),
    ]
}

fn as_json(hub: &Hub, entry: &Arc<ModelEntry>) -> serde_json::Value {
    json!({
        "name": entry.name,
        "aliases": entry.aliases,
        "kind": entry.kind.as_str(),
        "base": entry.base.map(BaseModel::as_str),
        "source": entry.source.to_string(),
        "ready": matches!(hub.look(entry), Found::Ready(_) | Found::Unchecked),
        "state": state_of(hub, entry),
    })
}
