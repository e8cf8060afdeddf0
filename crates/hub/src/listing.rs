//! The files of a repository by their paths, whether a hub has told them or a folder of the cache has them.

use std::collections::BTreeMap;
use std::path::Path;

/// No model has nearly as many files; folders may be deep or circular.
const MOST_FILES: usize = 20_000;
const DEEPEST: usize = 4;

/// Paths with `/` between their parts, and sizes where they are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing(BTreeMap<String, Option<u64>>);

impl Listing {
    /// What a folder of the cache holds; links to blobs that are not there do not count.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        let mut listing = Self::default();
        listing.add_folder(folder, "", DEEPEST);
        listing
    }

    fn add_folder(&mut self, folder: &Path, prefix: &str, deeper: usize) {
        let Ok(entries) = fs_err::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let (Some(name), false) = (name.to_str(), self.0.len() >= MOST_FILES) else {
                continue;
            };
            let path = format!("{prefix}{name}");
            // Follows the link to the blob.
            match fs_err::metadata(entry.path()) {
                Ok(about) if about.is_file() => {
                    self.0.insert(path, Some(about.len()));
                }
                Ok(about) if about.is_dir() && deeper > 0 => {
                    self.add_folder(&entry.path(), &format!("{path}/"), deeper - 1);
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The names of the files that lie in a folder itself; the empty text is the top.
    pub(crate) fn names_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().filter_map(move |path| {
            let name = if folder.is_empty() {
                path
            } else {
                path.strip_prefix(folder)?.strip_prefix('/')?
            };
            (!name.contains('/')).then_some(name)
        })
    }

    /// The files below a folder, by their paths in it.
    pub(crate) fn within(&self, folder: &str) -> Self {
        let below = |path: &String| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
        let files = self.0.iter();
        files
            .filter_map(|(path, size)| Some((below(path)?, *size)))
            .collect()
    }

    /// The sum of the sizes that are known.
    pub(crate) fn bytes_of(&self, paths: &[String]) -> u64 {
        paths
            .iter()
            .filter_map(|path| self.0.get(path).copied().flatten())
            .fold(0, u64::saturating_add)
    }
}

impl FromIterator<(String, Option<u64>)> for Listing {
    fn from_iter<T: IntoIterator<Item = (String, Option<u64>)>>(files: T) -> Self {
        Self(files.into_iter().collect())
    }
}
