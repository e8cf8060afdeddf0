//! What the rules look at: the files that git tracks (or would), and the workspace's own packages.
//!
//! A `Tree` is plain data, so that a rule can be tested on a made-up one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::shell;

/// One package of the workspace, with the names of what it depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    /// As in its `Cargo.toml`.
    pub(crate) name: String,
    /// Its folder under `crates/`.
    pub(crate) folder: String,
    /// Names of normal and build dependencies.
    pub(crate) dependencies: Vec<String>,
    /// Names of dependencies of its tests only.
    pub(crate) dev_dependencies: Vec<String>,
}

/// One file, by its path from the root with `/` between the parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
}

impl SourceFile {
    /// The text, or nothing for a binary file.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// What follows the last dot of the name.
    pub(crate) fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, extension)| extension)
    }
}

/// The whole repository as the rules see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) packages: Vec<Package>,
}

impl Tree {
    /// Made-up files.
    #[cfg(test)]
    pub(crate) fn of_files(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| SourceFile {
            path: (*path).to_owned(),
            bytes: text.as_bytes().to_vec(),
        };
        Self {
            files: files.iter().map(file).collect(),
            packages: Vec::new(),
        }
    }

    /// Reads the repository.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let root = root();
        let mut files = Vec::new();
        for path in listed_files(&root)? {
            let full = root.join(&path);
            // A tracked file may have been deleted, and a link has no text of its own.
            if full.is_file() && !full.is_symlink() {
                files.push(SourceFile {
                    path,
                    bytes: fs_err::read(&full)?,
                });
            }
        }
        Ok(Self {
            files,
            packages: packages(&root)?,
        })
    }

    /// The file at a path.
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files whose name ends so.
    pub(crate) fn with_extension<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = &'a SourceFile> {
        self.files
            .iter()
            .filter(move |file| file.extension() == extension)
    }
}

/// The repository's root: two folders above this package.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Tracked files and new ones that are not ignored; without git (an unpacked archive), everything outside `target`.
fn listed_files(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root);
    if let Ok(list) = shell::output_of(&mut git) {
        let mut paths: Vec<String> = list
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect();
        paths.sort_unstable();
        paths.dedup();
        return Ok(paths);
    }
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if path.is_file() {
                let relative = path.strip_prefix(root).context("a walk stays below its root")?;
                paths.push(relative.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn packages(root: &Path) -> anyhow::Result<Vec<Package>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let names = |package: &cargo_metadata::Package, dev: bool| {
        package
            .dependencies
            .iter()
            .filter(|dependency| (dependency.kind == DependencyKind::Development) == dev)
            .map(|dependency| dependency.name.clone())
            .collect()
    };
    let found = metadata.packages.iter().map(|package| Package {
        name: package.name.to_string(),
        folder: package
            .manifest_path
            .parent()
            .and_then(|folder| folder.file_name())
            .unwrap_or_default()
            .to_owned(),
        dependencies: names(package, false),
        dev_dependencies: names(package, true),
    });
    Ok(found.collect())
}
