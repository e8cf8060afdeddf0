//! The door to the models' files: what is here, what is on its way, and how it gets here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pentimento_catalog::{Availability, ModelEntry, Source, Unavailable};
use pentimento_types::Clock;
use tokio::sync::Semaphore;

use crate::cache::sha256_in;
use crate::checks::Checks;
use crate::client::Client;
use crate::download::download;
use crate::inner::Inner;
use crate::listing::Listing;
use crate::places::cached;
use crate::progress::Stage;
use crate::works::{ModelWork, Reporter, Works};
use crate::{HubError, HubSettings};

/// Models that are fetched at once; more wait.
const DOWNLOADS_AT_ONCE: usize = 2;

/// What is known of a model's files.
#[derive(Clone, Debug)]
pub enum Found {
    /// They can be used; for a model that was fetched, the entry says where they are on this machine.
    Ready(Arc<ModelEntry>),
    /// They are here, and their sha256 has not been compared yet.
    Unchecked,
    /// They are here, and are not those that the catalogue means.
    Wrong(Arc<HubError>),
    /// They are not here, and can be fetched.
    Absent,
    /// They cannot be used, and nothing here can change that.
    Unavailable(Unavailable),
}

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

impl Hub {
    /// Opens no connection and touches no disk.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(settings: HubSettings, clock: Arc<dyn Clock>) -> Result<Self, HubError> {
        Ok(Self(Arc::new(Inner {
            client: Client::new(&settings)?,
            settings,
            checks: Checks::default(),
            turns: Semaphore::new(DOWNLOADS_AT_ONCE),
            works: Works::new(clock),
        })))
    }

    /// Looks at the disk, and fetches nothing. Waits for the disk, so it is not for an async thread.
    #[must_use]
    pub fn look(&self, entry: &Arc<ModelEntry>) -> Found {
        let place = match &entry.source {
            Source::Embedded(_) => None,
            Source::Path(path) => Some(path.clone()),
            Source::HuggingFace { .. } | Source::Https(_) => match cached(&self.0, entry) {
                Some(place) => Some(place),
                None => return Found::Absent,
            },
        };
        let located = match &place {
            Some(place) if entry.source != Source::Path(place.clone()) => Arc::new(ModelEntry {
                source: Source::Path(place.clone()),
                ..ModelEntry::clone(entry)
            }),
            Some(_) | None => Arc::clone(entry),
        };
        if let Availability::Unavailable(why) = located.availability() {
            return Found::Unavailable(why);
        }
        let (Some(expected), Some(place)) = (&entry.sha256, &place) else {
            return Found::Ready(located);
        };
        match self.0.checks.known(place) {
            Ok(Some(found)) if found == *expected => Found::Ready(located),
            Ok(Some(found)) => Found::Wrong(Arc::new(HubError::ChangedFile {
                expected: expected.clone(),
                found,
            })),
            Ok(None) => Found::Unchecked,
            Err(_) => Found::Unavailable(Unavailable::Unreadable { path: place.clone() }),
        }
    }

    /// The work on an entry's files that is under way.
    #[must_use]
    pub fn under_way(&self, entry: &ModelEntry) -> Option<ModelWork> {
        self.0.works.find(&entry.files_key())
    }

    /// Why the last work on an entry's files failed, as long as it is not worth another try.
    #[must_use]
    pub fn failure(&self, entry: &ModelEntry) -> Option<Arc<HubError>> {
        self.0.works.failure(&entry.files_key())
    }

    /// Whether nothing may be fetched.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.0.settings.offline
    }

    /// Begins to bring the files here or to check them, or joins who does. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it has just failed, or the hub may not be asked.
    pub fn obtain(&self, entry: &Arc<ModelEntry>, found: &Found) -> Result<ModelWork, Arc<HubError>> {
        if let Some(work) = self.under_way(entry) {
            return Ok(work);
        }
        if let Some(error) = self.failure(entry) {
            return Err(error);
        }
        self.begin(entry, found)
    }

    /// The same, whatever has failed before.
    ///
    /// # Errors
    /// When the hub may not be asked.
    pub fn begin(&self, entry: &Arc<ModelEntry>, found: &Found) -> Result<ModelWork, Arc<HubError>> {
        let (inner, its_entry) = (Arc::clone(&self.0), Arc::clone(entry));
        let key = entry.files_key();
        if matches!(found, Found::Unchecked) {
            return Ok(self
                .0
                .works
                .join(&key, |reporter| check(inner, its_entry, reporter)));
        }
        if self.0.settings.offline {
            return Err(Arc::new(HubError::Offline));
        }
        Ok(self
            .0
            .works
            .join(&key, |reporter| download(inner, its_entry, reporter)))
    }

    /// Compares what lies at a place of the cache with the sha256 that a hub has named it by, and says how many files that
    /// were. Waits for the disk.
    ///
    /// # Errors
    /// [`HubError::ChangedFile`] for the first that is another one.
    pub fn compare_with_names(&self, place: &Path) -> Result<usize, HubError> {
        let files = Listing::of_folder(place);
        let mut compared = 0;
        let inside = files.paths().map(|path| place.join(path));
        for file in inside.chain(place.is_file().then(|| place.to_owned())) {
            let blob = fs_err::canonicalize(&file).map_err(HubError::disk("read its file", &file))?;
            let name = blob
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if let Some(sha256) = sha256_in(name) {
                self.0.checks.check(&file, sha256, &mut |_| {})?;
                compared += 1;
            }
        }
        Ok(compared)
    }

    /// Ends the work on an entry's files; what has arrived is kept for the next time. False when there is none.
    pub fn cancel(&self, entry: &ModelEntry) -> bool {
        self.0.works.cancel(&entry.files_key())
    }
}

/// Compares a file with its sha256.
async fn check(inner: Arc<Inner>, entry: Arc<ModelEntry>, reporter: Reporter) -> Result<PathBuf, HubError> {
    let checking = move || {
        let place = match &entry.source {
            Source::Path(path) => Some(path.clone()),
            Source::HuggingFace { .. } | Source::Https(_) => cached(&inner, &entry),
            Source::Embedded(_) => None,
        };
        let (Some(place), Some(expected)) = (place, &entry.sha256) else {
            return Err(HubError::Cancelled);
        };
        reporter.stage(Stage::Checking);
        if let Ok(about) = fs_err::metadata(&place) {
            reporter.expect(about.len());
        }
        inner
            .checks
            .check(&place, expected, &mut |bytes| reporter.came(bytes))?;
        Ok(place)
    };
    // A panic is the check's fault.
    tokio::task::spawn_blocking(checking)
        .await
        .unwrap_or(Err(HubError::Cancelled))
}
