//! Where files lie: the layout of Python's `huggingface_hub`, `models--owner--name/{blobs,refs,snapshots}`.
//!
//! Invariant: a name from outside becomes a part of a path only after it has been checked here.

use std::path::{Component, Path, PathBuf};

use pentimento_types::read_regular;
use sha2::{Digest as _, Sha256};

use crate::HubError;
use crate::writer::hex;

/// A file with a commit in it.
const LONGEST_REF: u64 = 256;
const LONGEST_NAME: usize = 255;

/// The part of the cache that belongs to one repository.
#[derive(Clone, Debug)]
pub(crate) struct RepositoryCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepositoryCache {
    /// `repo` is `owner/name` as the catalogue has checked it.
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(blob_name(etag))
    }

    /// What has been fetched of a blob.
    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder
            .join("blobs")
            .join(format!("{}.incomplete", blob_name(etag)))
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{}.lock", blob_name(etag)))
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where it is noted what was fetched whole. Python's program looks at its own three folders only.
    pub(crate) fn notes(&self) -> PathBuf {
        self.folder.join(".pentimento")
    }

    /// The commit that a revision meant when something of it was last fetched.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        let file = inside(&self.folder.join("refs"), revision)?;
        let commit = read_regular(&file, LONGEST_REF)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let commit = commit.map_or_else(|| revision.to_owned(), |text| text.trim().to_owned());
        let is_name = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_name && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Remembers what a revision means.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let refs = self.folder.join("refs");
        if revision == commit {
            return Ok(());
        }
        let Some(file) = inside(&refs, revision) else {
            return Ok(());
        };
        let failed = || HubError::disk("write into its cache", &file);
        fs_err::create_dir_all(file.parent().unwrap_or(&refs)).map_err(failed())?;
        let new = file.with_extension("new");
        fs_err::write(&new, commit).map_err(failed())?;
        fs_err::rename(&new, &file).map_err(failed())
    }

    /// Makes a blob appear as a file of a commit.
    pub(crate) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(commit);
        let Some(place) = inside(&snapshot, path) else {
            return Err(HubError::Nonsense {
                host: "the hub".to_owned(),
                problem: "a file whose name leads out of its folder".to_owned(),
            });
        };
        let failed = || HubError::disk("write into its cache", &place);
        fs_err::create_dir_all(place.parent().unwrap_or(&snapshot)).map_err(failed())?;
        let blob = self.blob(etag);
        if fs_err::symlink_metadata(&place).is_ok() {
            fs_err::remove_file(&place).map_err(failed())?;
        }
        // As relative as Python makes them, so that the cache can be moved.
        let depth = path.split('/').count() + 1;
        let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
        target.push("blobs");
        target.push(blob_name(etag));
        link_or_copy(&target, &blob, &place).map_err(failed())?;
        Ok(place)
    }
}

#[cfg(unix)]
fn link_or_copy(target: &Path, _blob: &Path, place: &Path) -> std::io::Result<()> {
    fs_err::os::unix::fs::symlink(target, place)
}

#[cfg(not(unix))]
fn link_or_copy(_target: &Path, blob: &Path, place: &Path) -> std::io::Result<()> {
    fs_err::hard_link(blob, place).or_else(|_| fs_err::copy(blob, place).map(|_| ()))
}

/// A path below a folder; None for a name that leads elsewhere.
pub(crate) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let is_name = |part: &str| {
        let is_plain = Path::new(part)
            .components()
            .eq([Component::Normal(part.as_ref())]);
        is_plain
            && part.len() <= LONGEST_NAME
            && !part.contains(['\\', ':', '\0'])
            && !part.chars().any(char::is_control)
    };
    let mut place = folder.to_owned();
    for part in path.split('/') {
        if !is_name(part) {
            return None;
        }
        place.push(part);
    }
    Some(place)
}

/// What a hub calls a file's bytes is a sha256 or the sha1 of git. Anything else is a name that we make of it.
fn blob_name(etag: &str) -> String {
    let is_name = (1..=128).contains(&etag.len())
        && !etag.starts_with('.')
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !etag.ends_with(".incomplete");
    if is_name {
        return etag.to_owned();
    }
    let mut hasher = Sha256::new();
    hasher.update(etag);
    hex(hasher)
}

/// The sha256 that an etag is, for files that a hub keeps beside git.
pub(crate) fn sha256_in(etag: &str) -> Option<&str> {
    (etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(etag)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let folder = Path::new("/cache");
        assert_eq!(
            inside(folder, "unet/config.json"),
            Some("/cache/unet/config.json".into())
        );
        let long = "a".repeat(256);
        for path in [
            "",
            ".",
            "..",
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a//b",
            "a/",
            "a\\b",
            "C:x",
            "a\0",
            "a/./b",
            "a\nb",
            &long,
        ] {
            assert_eq!(inside(folder, path), None, "{path:?}");
        }
    }

    #[test]
    fn an_etag_never_becomes_another_path() {
        let cache = RepositoryCache::new(Path::new("/cache"), "owner/name");
        assert_eq!(
            cache.blob("0a1b"),
            Path::new("/cache/models--owner--name/blobs/0a1b")
        );
        for etag in [
            "../../x",
            "",
            "..",
            ".hidden",
            "a/b",
            "a b",
            "x.incomplete",
            &"a".repeat(200),
        ] {
            let blob = cache.blob(etag);
            assert_eq!(
                blob.parent(),
                Some(Path::new("/cache/models--owner--name/blobs")),
                "{etag:?}"
            );
            assert_eq!(blob.file_name().map(|name| name.len()), Some(64), "{etag:?}");
        }
    }
}
