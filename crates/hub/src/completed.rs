//! Which files of a commit a model consists of, noted when all of them had been fetched for it.
//!
//! Without the list of the whole repository, the files that are here do not say it: one that was fetched for another entry
//! would pass for all of the repository, or the copy of another variant for the one that is wanted.

use std::path::{Path, PathBuf};

use pentimento_catalog::ModelEntry;
use pentimento_types::read_regular;

use crate::HubError;
use crate::cache::{RepositoryCache, inside};
use crate::choice::{Choice, choose_for};
use crate::listing::Listing;

/// A checkpoint of a hundred shards fits.
const LONGEST_NOTE: u64 = 1 << 18;

/// Where an entry's files are, when all of them are here: as noted, or where whatever else the repository has would make no
/// difference, as when Python has fetched them.
pub(crate) fn completed(cache: &RepositoryCache, commit: &str, entry: &ModelEntry) -> Option<PathBuf> {
    let snapshot = cache.snapshot(commit);
    let choice = noted(&note_of(cache, commit, entry)?)
        .filter(|choice| are_here(&snapshot, choice))
        .or_else(|| {
            let listing = Listing::of_folder(&snapshot);
            let choice = choose_for(&listing, entry).ok()?;
            choice.is_certain.then_some(choice)
        })?;
    if choice.place.is_empty() {
        return Some(snapshot);
    }
    inside(&snapshot, &choice.place)
}

/// Notes that all files of the choice are here.
pub(crate) fn note(
    cache: &RepositoryCache,
    commit: &str,
    entry: &ModelEntry,
    choice: &Choice,
) -> Result<(), HubError> {
    let Some(place) = note_of(cache, commit, entry) else {
        return Ok(());
    };
    let failed = || HubError::disk("write into its cache", &place);
    let text = serde_json::to_vec(choice).map_err(|error| failed()(error.into()))?;
    if let Some(folder) = place.parent() {
        fs_err::create_dir_all(folder).map_err(failed())?;
    }
    let new = place.with_extension("new");
    fs_err::write(&new, text).map_err(failed())?;
    fs_err::rename(&new, &place).map_err(failed())
}

fn note_of(cache: &RepositoryCache, commit: &str, entry: &ModelEntry) -> Option<PathBuf> {
    let variant = entry.variant.as_deref().unwrap_or_default();
    // A variant has no such sign.
    let folder = entry
        .source
        .repository_folder()
        .unwrap_or_default()
        .replace('/', "+");
    let separator = if folder.is_empty() { "" } else { "+" };
    let name = format!("{commit}/{}-{variant}{separator}{folder}.json", entry.kind);
    inside(&cache.notes(), &name)
}

fn noted(place: &Path) -> Option<Choice> {
    let bytes = read_regular(place, LONGEST_NOTE).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn are_here(snapshot: &Path, choice: &Choice) -> bool {
    let is_here = |file: &String| inside(snapshot, file).is_some_and(|place| place.is_file());
    !choice.files.is_empty() && choice.files.iter().all(is_here)
}
