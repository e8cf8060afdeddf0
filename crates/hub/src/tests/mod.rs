//! The client against a hub on this machine that behaves as the public one does.

mod downloads;
mod failures;
mod local_hub;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_types::SystemClock;
use tempfile::TempDir;

use self::local_hub::LocalHub;
use crate::{Found, Hub, HubError, HubSettings, Token};

/// A client with a cache of its own.
struct Client {
    hub: Hub,
    cache: PathBuf,
    _folder: TempDir,
}

impl Client {
    fn of(server: &LocalHub) -> Self {
        Self::with(server, |_| {})
    }

    fn with(server: &LocalHub, change: impl FnOnce(&mut HubSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("hub");
        let mut settings = HubSettings {
            endpoint: server.endpoint.clone(),
            token: Token::new("hf_secret"),
            system_proxy: false,
            retry_pause: Duration::from_millis(5),
            silence: Duration::from_secs(5),
            ..HubSettings::new(cache.clone(), folder.path().join("downloads"))
        };
        change(&mut settings);
        Self {
            hub: Hub::new(settings, Arc::new(SystemClock)).unwrap(),
            cache,
            _folder: folder,
        }
    }

    /// Fetches an entry, whatever has failed before.
    async fn fetch(&self, entry: &Arc<ModelEntry>) -> Result<PathBuf, Arc<HubError>> {
        let found = self.hub.look(entry);
        self.hub.begin(entry, &found)?.end().await
    }

    /// Where an entry's files are, when they can be used.
    fn place(&self, entry: &Arc<ModelEntry>) -> Option<PathBuf> {
        let Found::Ready(located) = self.hub.look(entry) else {
            return None;
        };
        let Source::Path(path) = &located.source else {
            panic!("{}", located.source)
        };
        Some(path.clone())
    }
}

fn entry(kind: ModelKind, source: &str) -> Arc<ModelEntry> {
    Arc::new(ModelEntry::new("model", kind, parsed(source)))
}

/// The one file `file` of the repository `owner/repo`.
fn file_entry(file: &str) -> Arc<ModelEntry> {
    entry(ModelKind::Lora, &format!("hf:owner/repo:{file}"))
}

fn of_variant(entry: &ModelEntry, variant: &str) -> Arc<ModelEntry> {
    Arc::new(ModelEntry {
        variant: Some(variant.to_owned()),
        ..entry.clone()
    })
}

fn parsed(source: &str) -> Source {
    let text = format!("[[model]]\nname = \"a\"\nkind = \"checkpoint\"\nsource = \"{source}\"\n");
    let catalog = pentimento_catalog::Catalog::from_text(&text, Path::new("models.toml")).unwrap();
    catalog.entries()[0].source.clone()
}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}
