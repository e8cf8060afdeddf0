//! All files of one model: what is needed, what is here already, whether the disk has room, and then one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pentimento_catalog::{ModelEntry, Source};
use url::Url;

use crate::HubError;
use crate::cache::{RepositoryCache, sha256_in};
use crate::choice::choose_for;
use crate::client::{Asked, RemoteFile};
use crate::completed::note;
use crate::disk_space::check_room;
use crate::inner::Inner;
use crate::listing::Listing;
use crate::lock::FileLock;
use crate::on_disk::on_disk;
use crate::places::{DEFAULT_REVISION, https_place};
use crate::progress::Stage;
use crate::retry::again_and_again;
use crate::transfer::Transfer;
use crate::works::Reporter;

/// Brings an entry's files here, and says where they are.
pub(crate) async fn download(
    inner: Arc<Inner>,
    entry: Arc<ModelEntry>,
    reporter: Reporter,
) -> Result<PathBuf, HubError> {
    let inner = &*inner;
    let _turn = inner.turns.acquire().await.map_err(|_| HubError::Cancelled)?;
    reporter.stage(Stage::Downloading);
    match &entry.source {
        Source::HuggingFace { repo, revision, file } => {
            let revision = revision.as_deref().unwrap_or(DEFAULT_REVISION);
            let repository = Repository {
                inner,
                cache: RepositoryCache::new(&inner.settings.cache, repo),
                repo,
                revision,
                entry: &entry,
                reporter: &reporter,
            };
            match file {
                Some(file) if entry.source.repository_folder().is_none() => repository.fetch_one(file).await,
                _ => repository.fetch_chosen().await,
            }
        }
        Source::Https(address) => fetch_https(inner, &entry, address, &reporter).await,
        // Nothing of these is ever fetched.
        Source::Path(_) | Source::Embedded(_) => Err(HubError::Cancelled),
    }
}

/// A repository, on behalf of one entry.
struct Repository<'a> {
    inner: &'a Inner,
    cache: RepositoryCache,
    repo: &'a str,
    revision: &'a str,
    entry: &'a ModelEntry,
    reporter: &'a Reporter,
}

/// A file that is to be fetched.
struct Wanted {
    path: String,
    remote: RemoteFile,
    etag: String,
}

impl Repository<'_> {
    async fn fetch_chosen(&self) -> Result<PathBuf, HubError> {
        let info = again_and_again(self.inner.settings.retry_pause, || {
            self.inner.client.repository(self.repo, self.revision)
        })
        .await?;
        let commit = info.commit;
        let listing: Listing = info
            .siblings
            .into_iter()
            .map(|file| (file.path, file.size))
            .collect();
        let choice = choose_for(&listing, self.entry).map_err(|problem| HubError::NothingToUse {
            repo: self.repo.to_owned(),
            kind: self.entry.kind.as_str(),
            problem,
        })?;
        self.reporter.expect(listing.bytes_of(&choice.files));
        self.fetch(&commit, choice.files.clone()).await?;
        let (cache, revision) = (self.cache.clone(), self.revision.to_owned());
        let entry = self.entry.clone();
        on_disk(move || {
            note(&cache, &commit, &entry, &choice)?;
            cache.set_commit(&revision, &commit)?;
            let snapshot = cache.snapshot(&commit);
            Ok(if choice.place.is_empty() {
                snapshot
            } else {
                snapshot.join(choice.place)
            })
        })
        .await
    }

    /// The one file that the source names.
    async fn fetch_one(&self, file: &str) -> Result<PathBuf, HubError> {
        let remote = self.look_at(self.revision, file).await?;
        let commit = remote
            .commit
            .clone()
            .ok_or_else(|| self.nonsense("a file without its commit"))?;
        self.fetch(&commit, vec![file.to_owned()]).await?;
        let (cache, revision, file) = (self.cache.clone(), self.revision.to_owned(), file.to_owned());
        on_disk(move || {
            cache.set_commit(&revision, &commit)?;
            Ok(cache.snapshot(&commit).join(file))
        })
        .await
    }

    async fn fetch(&self, commit: &str, files: Vec<String>) -> Result<(), HubError> {
        let mut wanted = Vec::with_capacity(files.len());
        for path in files {
            let remote = self.look_at(commit, &path).await?;
            let etag = remote
                .etag
                .clone()
                .ok_or_else(|| self.nonsense("a file without its etag"))?;
            wanted.push(Wanted { path, remote, etag });
        }
        // A hub may announce anything.
        let sizes = wanted.iter().map(|file| file.remote.size);
        self.reporter.expect(sizes.fold(0, u64::saturating_add));
        let places: Vec<(u64, String)> = wanted
            .iter()
            .map(|file| (file.remote.size, file.etag.clone()))
            .collect();
        let cache = self.cache.clone();
        on_disk(move || {
            let missing = places.iter().map(|(size, etag)| {
                let here = length(&cache.blob(etag)).or_else(|| length(&cache.incomplete(etag)));
                size.saturating_sub(here.unwrap_or(0))
            });
            check_room(cache.folder(), missing.fold(0, u64::saturating_add))
        })
        .await?;
        for file in &wanted {
            self.fetch_file(commit, file).await?;
        }
        Ok(())
    }

    async fn fetch_file(&self, commit: &str, file: &Wanted) -> Result<(), HubError> {
        let lock = self.cache.lock(&file.etag);
        let _lock = FileLock::take(&lock, || self.reporter.stage(Stage::Waiting)).await?;
        let blob = self.cache.blob(&file.etag);
        // The catalogue's own sha256 says which file is meant, whatever the hub has by now.
        let expected = self.entry.sha256.as_deref();
        if length_of(&blob).await? == Some(file.remote.size) {
            self.reporter.found(file.remote.size);
            self.link(commit, file).await?;
            return Ok(());
        }
        let address = self.inner.client.file_address(self.repo, commit, &file.path);
        let transfer = Transfer {
            client: &self.inner.client,
            address: &address,
            asked: Asked::File {
                repo: self.repo,
                revision: self.revision,
                path: &file.path,
            },
            name: &file.path,
            size: Some(file.remote.size),
            sha256: expected.or_else(|| sha256_in(&file.etag)),
            incomplete: self.cache.incomplete(&file.etag),
            place: blob,
            retry_pause: self.inner.settings.retry_pause,
            reporter: self.reporter,
        };
        let sha256 = transfer.run().await?;
        let place = self.link(commit, file).await?;
        self.inner.checks.remember(&place, sha256);
        Ok(())
    }

    async fn link(&self, commit: &str, file: &Wanted) -> Result<PathBuf, HubError> {
        let (cache, commit) = (self.cache.clone(), commit.to_owned());
        let (path, etag) = (file.path.clone(), file.etag.clone());
        on_disk(move || cache.link(&commit, &path, &etag)).await
    }

    /// What a file is, asked until the hub answers, a few times.
    async fn look_at(&self, revision: &str, path: &str) -> Result<RemoteFile, HubError> {
        let client = &self.inner.client;
        again_and_again(self.inner.settings.retry_pause, || {
            client.look_at(self.repo, revision, path)
        })
        .await
    }

    fn nonsense(&self, problem: &str) -> HubError {
        HubError::Nonsense {
            host: crate::client::host_of(&self.inner.settings.endpoint),
            problem: problem.to_owned(),
        }
    }
}

async fn fetch_https(
    inner: &Inner,
    entry: &ModelEntry,
    address: &str,
    reporter: &Reporter,
) -> Result<PathBuf, HubError> {
    let (Ok(address), Some(sha256)) = (Url::parse(address), entry.sha256.as_deref()) else {
        // The catalogue takes no such entry.
        return Err(HubError::Cancelled);
    };
    let place = https_place(&inner.settings.downloads, &address, sha256);
    let lock = place.with_extension("lock");
    let _lock = FileLock::take(&lock, || reporter.stage(Stage::Waiting)).await?;
    if length_of(&place).await?.is_some() {
        return Ok(place);
    }
    let path = address.path().rsplit('/').next().unwrap_or_default().to_owned();
    let asked = Asked::Elsewhere { path: &path };
    let look = || {
        let part = crate::client::Part {
            start: 0,
            if_range: None,
        };
        inner.client.open(&address, &asked, part)
    };
    // The head of the answer tells the size; the transfer asks anew, from where it goes on.
    let size = again_and_again(inner.settings.retry_pause, look).await?.size;
    let incomplete = place.with_extension("incomplete");
    if let Some(size) = size {
        reporter.expect(size);
        let incomplete = incomplete.clone();
        on_disk(move || check_room(&incomplete, size.saturating_sub(length(&incomplete).unwrap_or(0))))
            .await?;
    }
    let transfer = Transfer {
        client: &inner.client,
        address: &address,
        asked,
        name: &path,
        size,
        sha256: Some(sha256),
        incomplete,
        place: place.clone(),
        retry_pause: inner.settings.retry_pause,
        reporter,
    };
    let sha256 = transfer.run().await?;
    inner.checks.remember(&place, sha256);
    Ok(place)
}

async fn length_of(path: &Path) -> Result<Option<u64>, HubError> {
    let path = path.to_owned();
    on_disk(move || Ok(length(&path))).await
}

fn length(path: &Path) -> Option<u64> {
    fs_err::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|about| about.len())
}
