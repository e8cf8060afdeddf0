//! `pentimento models`: what the catalogue says, and whether the files are there.

use pentimento_catalog::{Availability, ModelEntry, Source};
use serde_json::json;

use crate::args::{ModelsAction, ModelsArgs, ModelsListArgs};
use crate::config::Config;
use crate::{assemble, output};

/// Runs one of the actions.
pub(crate) fn run(args: &ModelsArgs, config: &Config) -> anyhow::Result<()> {
    match &args.action {
        ModelsAction::List(list) => self::list(list, config),
    }
}

fn list(args: &ModelsListArgs, config: &Config) -> anyhow::Result<()> {
    let catalog = assemble::catalog(config)?;
    if args.json {
        let entries: Vec<_> = catalog.entries().iter().map(|entry| as_json(entry)).collect();
        output::line(serde_json::to_string_pretty(&entries)?);
        return Ok(());
    }
    let rows: Vec<[String; 5]> = catalog.entries().iter().map(|entry| as_row(entry)).collect();
    for line in table(
        ["NAME", "KIND", "BASE", "STATE", "SOURCE"].map(str::to_owned),
        rows,
    ) {
        output::line(line);
    }
    Ok(())
}

/// Ready, or why not.
pub(crate) fn state_of(entry: &ModelEntry) -> String {
    match entry.availability() {
        Availability::Available => "ready".to_owned(),
        Availability::Unavailable(reason) => reason.to_string(),
    }
}

fn source_of(source: &Source) -> String {
    match source {
        Source::Path(path) => path.display().to_string(),
        Source::Embedded(name) => format!("embedded:{name}"),
        Source::HuggingFace { repo, revision, file } => {
            let revision = revision
                .as_ref()
                .map_or_else(String::new, |name| format!("@{name}"));
            let file = file.as_ref().map_or_else(String::new, |name| format!(":{name}"));
            format!("hf:{repo}{revision}{file}")
        }
        Source::Https(address) => address.clone(),
    }
}

fn base_of(entry: &ModelEntry) -> &'static str {
    entry.base.map_or("", pentimento_catalog::BaseModel::as_str)
}

fn as_row(entry: &ModelEntry) -> [String; 5] {
    [
        entry.name.clone(),
        entry.kind.to_string(),
        base_of(entry).to_owned(),
        state_of(entry),
        source_of(&entry.source),
    ]
}

fn as_json(entry: &ModelEntry) -> serde_json::Value {
    json!({
        "name": entry.name,
        "aliases": entry.aliases,
        "kind": entry.kind.as_str(),
        "base": entry.base.map(pentimento_catalog::BaseModel::as_str),
        "source": source_of(&entry.source),
        "ready": entry.availability() == Availability::Available,
        "state": state_of(entry),
    })
}

/// Columns as wide as their longest cell; the last one is not padded.
fn table<const N: usize>(head: [String; N], rows: Vec<[String; N]>) -> Vec<String> {
    let all: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        all.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let text = |cells: [&str; 2]| cells.map(str::to_owned);
        let lines = table(text(["A", "B"]), vec![text(["long", "x"]), text(["é", "yy"])]);
        assert_eq!(lines, ["A     B", "long  x", "é     yy"]);
    }

    #[test]
    fn a_source_is_printed_as_it_is_written() {
        let hub = Source::HuggingFace {
            repo: "a/b".to_owned(),
            revision: Some("main".to_owned()),
            file: Some("c.safetensors".to_owned()),
        };
        assert_eq!(source_of(&hub), "hf:a/b@main:c.safetensors");
        assert_eq!(source_of(&Source::Embedded("demo".to_owned())), "embedded:demo");
    }
}
