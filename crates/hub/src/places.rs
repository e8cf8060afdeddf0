//! Where the files of a source are on this machine, when all of them are.

use std::path::{Path, PathBuf};

use pentimento_catalog::{ModelEntry, Source};
use url::Url;

use crate::cache::{RepositoryCache, inside};
use crate::completed::completed;
use crate::inner::Inner;

pub(crate) const DEFAULT_REVISION: &str = "main";
/// The endings by which a loader knows what a file is.
const ENDINGS: [&str; 5] = ["safetensors", "ckpt", "pt", "pth", "bin"];

/// Where a source's files are in the cache, when all of them are.
pub(crate) fn cached(inner: &Inner, entry: &ModelEntry) -> Option<PathBuf> {
    match &entry.source {
        Source::HuggingFace { repo, revision, file } => {
            let cache = RepositoryCache::new(&inner.settings.cache, repo);
            let commit = cache.commit_of(revision.as_deref().unwrap_or(DEFAULT_REVISION))?;
            let snapshot = cache.snapshot(&commit);
            match file {
                Some(file) if entry.source.repository_folder().is_none() => {
                    Some(inside(&snapshot, file)?).filter(|place| place.is_file())
                }
                _ => completed(&cache, &commit, entry),
            }
        }
        Source::Https(address) => {
            let address = Url::parse(address).ok()?;
            let place = https_place(&inner.settings.downloads, &address, entry.sha256.as_deref()?);
            place.is_file().then_some(place)
        }
        Source::Path(_) | Source::Embedded(_) => None,
    }
}

/// Files of `https:` sources are kept by what is in them; the ending stays, because loaders look at it.
pub(crate) fn https_place(downloads: &Path, address: &Url, sha256: &str) -> PathBuf {
    let ending = address
        .path()
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    let ending = ENDINGS
        .into_iter()
        .find(|known| Some(*known) == ending.as_deref());
    downloads.join(format!("{sha256}.{}", ending.unwrap_or("file")))
}
