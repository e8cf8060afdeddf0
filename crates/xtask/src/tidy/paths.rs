//! The rule that a document names only files that exist.
//!
//! What stands in backticks counts when it looks like a path of the repository, and what a link leads to always does.
//! ARCHITECTURE's walk leaves out `crates` and `src`: `api/server.rs` is `crates/api/src/server.rs`. `<vendor>` stands for
//! each of the vendors' folders, any other word in angle brackets for some folder, `*` for some name.

use std::collections::BTreeSet;

use super::Violation;
use crate::tree::{SourceFile, Tree};

const VENDORS: &str = "crates/api/src/dialects/";
/// What tells of the past may name what is gone.
const HISTORY: &str = "CHANGELOG.md";

/// Endings that only a file of the repository has; documents name it without its folder too.
const SOURCE: &[&str] = &["rs", "py", "sh"];
/// Endings that make words with a slash in them a path.
const FILES: &[&str] = &[
    "rs",
    "py",
    "sh",
    "toml",
    "md",
    "json",
    "yaml",
    "yml",
    "png",
    "txt",
    "safetensors",
    "js",
    "mjs",
];

/// Names of what a command makes, and of what documents say is not there.
const NOT_COMMITTED: &[&str] = &["demo-output/", "run/", "tokenizer/vocab.json", "utils.rs"];

/// A path in a document leads to a file or a folder.
pub(super) fn documents_name_real_files(tree: &Tree) -> Vec<Violation> {
    let known = Known::of(tree);
    let mut found = Vec::new();
    for document in tree.with_extension("md").filter(|file| file.path != HISTORY) {
        for (line, named) in named_in(document.text().unwrap_or_default()) {
            let (shown, exists) = match named {
                Named::Code(text) if known.looks_like_a_path(text) => (text, known.has(document, text)),
                Named::Link(text) => (text, known.has_link(document, text)),
                Named::Code(_) => continue,
            };
            if !exists {
                found.push(Violation::at(
                    &format!("{}:{line}", document.path),
                    format!(
                        "names `{shown}`, and there is no such file or folder: name the one there is now, from the \
                         repository's root or from the document's folder"
                    ),
                ));
            }
        }
    }
    found
}

/// What a document names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named<'a> {
    /// In backticks, without spaces.
    Code(&'a str),
    /// What a link leads to.
    Link(&'a str),
}

/// What stands in backticks and links, line by line; code blocks are commands and examples.
fn named_in(text: &str) -> Vec<(usize, Named<'_>)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        let code = line.split('`').skip(1).step_by(2);
        let words = code
            .filter(|code| !code.contains(char::is_whitespace))
            .map(Named::Code);
        found.extend(words.map(|word| (index + 1, word)));
        let links = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target.split('#').next().unwrap_or_default())
            .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"));
        found.extend(links.map(|link| (index + 1, Named::Link(link))));
    }
    found
}

/// All files and folders.
struct Known<'a> {
    paths: BTreeSet<&'a str>,
    vendors: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    fn of(tree: &'a Tree) -> Self {
        let mut paths = BTreeSet::new();
        for file in &tree.files {
            paths.insert(file.path.as_str());
            paths.extend(file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
        }
        // A vendor's folder says in its README what of the vendor's it speaks.
        let below = paths.iter().filter_map(|path| path.strip_prefix(VENDORS));
        let vendors = below
            .filter_map(|below| below.strip_suffix("/README.md"))
            .collect();
        Self { paths, vendors }
    }

    fn looks_like_a_path(&self, text: &str) -> bool {
        let of_a_path = |c: char| c.is_ascii_alphanumeric() || "_-./<>*".contains(c);
        if !text.chars().all(of_a_path) || text.starts_with('/') || NOT_COMMITTED.contains(&text) {
            return false;
        }
        let (stem, ending) = text.rsplit_once('.').unwrap_or((text, ""));
        match text.split_once('/') {
            None => SOURCE.contains(&ending) && !stem.is_empty(),
            Some((first, _)) => {
                first.starts_with('.')
                    || self.paths.contains(first)
                    || text.ends_with('/')
                    || FILES.contains(&ending)
            }
        }
    }

    /// Whether a document's word in backticks leads somewhere: from the root, as in ARCHITECTURE's walk, from the
    /// document's folder, or for a document in a folder, as the end of a path below that folder.
    fn has(&self, document: &SourceFile, text: &str) -> bool {
        let folder = folder_of(&document.path);
        if text.contains("<vendor>") {
            return self
                .vendors
                .iter()
                .all(|vendor| self.has(document, &text.replace("<vendor>", vendor)));
        }
        let is_folder_or_longer = text.contains('/');
        let text = text.trim_end_matches('/');
        let by_the_walk = text
            .split_once('/')
            .map(|(name, rest)| format!("crates/{name}/src/{rest}"));
        if self.exists(text)
            || by_the_walk.is_some_and(|path| self.exists(&path))
            || join(folder, text).is_some_and(|path| self.exists(&path))
        {
            return true;
        }
        // Documents at the root and in `docs` speak of the whole repository, where almost any name ends some path.
        let whole = folder.is_empty() || folder == "docs" || folder.starts_with("docs/");
        let below = if whole { "" } else { folder };
        let may_be_an_end = !whole || !is_folder_or_longer;
        may_be_an_end
            && self.paths.iter().any(|path| {
                let inside = path.strip_prefix(below).unwrap_or_default();
                ends_with(inside.trim_start_matches('/'), text)
            })
    }

    fn has_link(&self, document: &SourceFile, target: &str) -> bool {
        join(folder_of(&document.path), target).is_some_and(|path| self.exists(&path))
    }

    fn exists(&self, pattern: &str) -> bool {
        if pattern.contains(['<', '*']) {
            self.paths.iter().any(|path| same(path, pattern))
        } else {
            self.paths.contains(pattern)
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A path as seen from a folder; nothing when it leads out of the repository.
fn join(folder: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Whether the last parts of a path are these.
fn ends_with(path: &str, end: &str) -> bool {
    let count = end.split('/').count();
    let parts: Vec<&str> = path.split('/').collect();
    parts.len() >= count && same(&parts[parts.len() - count..].join("/"), end)
}

/// Whether a path is what the pattern says, part by part.
fn same(path: &str, pattern: &str) -> bool {
    let (path, pattern) = (path.split('/'), pattern.split('/'));
    path.clone().count() == pattern.clone().count()
        && path.zip(pattern).all(|(part, pattern)| fits(part, pattern))
}

/// One part: `<name>` is any, and `*` any text within it.
fn fits(part: &str, pattern: &str) -> bool {
    if pattern.starts_with('<') && pattern.ends_with('>') {
        return true;
    }
    match pattern.split_once('*') {
        Some((before, after)) => {
            part.len() >= before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
        }
        None => part == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(path: &str, text: &str) -> Vec<Violation> {
        let files = [
            (path, text),
            ("crates/api/src/server.rs", ""),
            ("crates/api/src/dialects/one/README.md", ""),
            ("crates/api/src/dialects/one/wire.rs", ""),
            ("crates/api/src/dialects/two/README.md", ""),
            ("crates/api/src/dialects/two/wire.rs", ""),
            ("crates/api/src/dialects/two/convert.rs", ""),
            ("crates/api/src/dialects/shared/field.rs", ""),
            ("crates/kernels/README.md", ""),
            ("crates/kernels/src/conv2d/mod.rs", ""),
            ("crates/kernels/src/pool.rs", ""),
            ("docs/adr/0001-one.md", ""),
            ("tests/golden/a.safetensors", ""),
            (".ci/run", ""),
        ];
        let file = |(path, text): (&str, &str)| SourceFile {
            path: path.to_owned(),
            bytes: text.into(),
        };
        let mut files: Vec<SourceFile> = files.into_iter().map(file).collect();
        files.dedup_by(|later, earlier| later.path == earlier.path);
        documents_name_real_files(&Tree {
            files,
            packages: Vec::new(),
        })
    }

    #[test]
    fn what_exists_may_be_named_from_the_root_the_walk_and_the_folder() {
        let root = "`crates/api/src/server.rs` `crates/api` `crates/api/` `api/server.rs` `pool.rs` `.ci/run` \
                    `tests/golden/*` `crates/<name>/src` `crates/api/src/dialects/<vendor>/wire.rs` [x](docs/adr) \
                    [y](docs/adr/0001-one.md#part) [z](#here) [w](https://example.com/x.rs)";
        assert_eq!(found_in("ARCHITECTURE.md", root), []);
        let inside = "`conv2d/` `src/pool.rs` `pool.rs` `mod.rs` `../api` `api/server.rs` `README.md` [x](src/pool.rs)";
        assert_eq!(found_in("crates/kernels/README.md", inside), []);
        assert_eq!(found_in("docs/errors.md", "`adr/0001-one.md` [x](adr)"), []);
    }

    #[test]
    fn what_does_not_exist_is_found() {
        for bad in [
            "`crates/api/src/gone.rs`",
            "`crates/gone`",
            "`api/middleware/auth.rs`",
            "`gone.rs`",
            "`tests/gone/`",
            "`conv2d/`",
            "`crates/api/src/dialects/<vendor>/convert.rs`",
            "`tests/golden/*.png`",
            "[x](docs/gone.md)",
            "[x](../outside.md)",
        ] {
            assert_eq!(found_in("ARCHITECTURE.md", bad).len(), 1, "{bad}");
        }
        // A crate's document speaks of its crate.
        assert_eq!(found_in("crates/kernels/README.md", "`server.rs`").len(), 1);
        let expected = Violation::at(
            "a.md:2",
            "names `gone.rs`, and there is no such file or folder: name the one there is now, from the repository's root \
             or from the document's folder",
        );
        assert_eq!(found_in("a.md", "x\nsee `gone.rs`"), [expected]);
    }

    #[test]
    fn what_is_no_path_is_passed_over() {
        let fine = "`GET /` `/v3/gone.rs` `models.toml` `a/b` `x.y` `{a,b}/c.rs` `demo-output/` `utils.rs` `//!` `.rs`\n\
                    ```text\n`gone.rs`\n```\n";
        assert_eq!(found_in("README.md", fine), []);
        assert_eq!(found_in("CHANGELOG.md", "`gone.rs`"), []);
    }
}
