//! Which bytes a component is made of, told without reading its weights: a file that is replaced has another identity.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::WeightsError;

/// The files of one component as they are now. Equal identities stand for equal bytes, wherever they were asked for: two
/// folders that link to one weights file have one identity for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// Small files, such as a configuration, are compared by what is in them.
    pub(crate) contents: Vec<(String, Vec<u8>)>,
    pub(crate) large: Vec<FileStamp>,
}

/// One large file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FileStamp {
    /// The path with all links followed.
    OnDisk {
        path: PathBuf,
        size_bytes: u64,
        modified: Option<SystemTime>,
    },
    /// One part of a file that holds several.
    PartOfFile {
        file: Box<FileStamp>,
        part: String,
        size_bytes: u64,
    },
    /// A part of a model in memory, which never changes.
    InMemory { model: String, part: String },
    /// Weights drawn from a seed.
    Seeded { model: String, part: String, seed: u64 },
}

/// Everything in a model's folder as it is now, by name, length and time of change: equal stamps stand for a folder that
/// nobody has touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderStamp(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl FolderStamp {
    /// More files than a model has are not looked at.
    const MOST_FILES: usize = 1000;

    /// Looks at `path` and two levels of what is below it. What cannot be looked at is part of the stamp, too.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let mut stamp = Self::default();
        stamp.add(path.to_owned(), 2);
        stamp.0.sort_unstable();
        stamp
    }

    fn add(&mut self, path: PathBuf, depth: u32) {
        if self.0.len() >= Self::MOST_FILES {
            return;
        }
        let about = fs_err::metadata(&path).ok();
        let (size, modified) = about
            .as_ref()
            .map_or((0, None), |about| (about.len(), about.modified().ok()));
        let below = about.filter(|about| about.is_dir() && depth > 0);
        if let Some(found) = below.and_then(|_| fs_err::read_dir(&path).ok()) {
            for entry in found.flatten() {
                self.add(entry.path(), depth - 1);
            }
        }
        self.0.push((path, size, modified));
    }
}

impl FileStamp {
    /// Looks at a file on disk.
    pub(crate) fn of(path: &Path) -> Result<Self, WeightsError> {
        let unreadable = |source| WeightsError::Unreadable {
            file: path.display().to_string(),
            source,
        };
        let path = fs_err::canonicalize(path).map_err(unreadable)?;
        let about = fs_err::metadata(&path).map_err(unreadable)?;
        Ok(Self::OnDisk {
            size_bytes: about.len(),
            // Not every file system has it.
            modified: about.modified().ok(),
            path,
        })
    }

    const fn size_bytes(&self) -> u64 {
        match self {
            Self::OnDisk { size_bytes, .. } | Self::PartOfFile { size_bytes, .. } => *size_bytes,
            Self::InMemory { .. } | Self::Seeded { .. } => 0,
        }
    }
}

impl FileIdentity {
    /// The identity of what cannot change while the process runs.
    pub(crate) fn fixed(stamp: FileStamp) -> Self {
        Self {
            contents: Vec::new(),
            large: vec![stamp],
        }
    }

    /// The same files with something that changes what is made of them.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.contents.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// The size of the large files on disk, which is about what their tensors take in memory; 0 for what is in memory
    /// already.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.large.iter().map(FileStamp::size_bytes).sum()
    }
}
