//! Rules on documents and data: the list of crates, the golden manifest, and what must never be committed.

use std::collections::BTreeMap;

use super::Violation;
use crate::tree::{SourceFile, Tree};

const CRATE_LIST: &str = "crates/README.md";
const GOLDEN: &str = "tests/golden/";
const MANIFEST: &str = "tests/golden/MANIFEST.toml";
const SCRIPTS: &str = "tests/golden/generate/";

/// The list is the first thing a newcomer reads; a crate that is missing from it does not exist for them.
pub(super) fn crates_are_listed(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.file(CRATE_LIST).and_then(SourceFile::text) else {
        return vec![Violation::at(CRATE_LIST, "is missing")];
    };
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        let item = line.strip_prefix("* `").and_then(|rest| rest.split_once('`'));
        if let Some((name, _)) = item {
            *times.entry(name).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for package in &tree.packages {
        match times.remove(package.folder.as_str()) {
            Some(1) => {}
            Some(many) => found.push(Violation::at(
                CRATE_LIST,
                format!("lists `{}` {many} times", package.folder),
            )),
            None => found.push(Violation::at(
                CRATE_LIST,
                format!("needs a line \"* `{}`: …\" with one sentence", package.folder),
            )),
        }
    }
    let unknown = times
        .keys()
        .map(|name| Violation::at(CRATE_LIST, format!("`{name}` is not a crate")));
    found.extend(unknown);
    found
}

/// A reference value whose origin is not written down cannot be trusted or made again.
pub(super) fn golden_files_are_listed(tree: &Tree) -> Vec<Violation> {
    let is_data = |file: &&SourceFile| {
        file.path.starts_with(GOLDEN)
            && !file.path.starts_with(SCRIPTS)
            && file.path != MANIFEST
            && file.extension() != "md"
    };
    let data: Vec<&str> = tree
        .files
        .iter()
        .filter(is_data)
        .filter_map(|file| file.path.strip_prefix(GOLDEN))
        .collect();
    let table: toml::Table = match tree.file(MANIFEST).and_then(SourceFile::text).map(str::parse) {
        Some(Ok(table)) => table,
        Some(Err(error)) => return vec![Violation::at(MANIFEST, error)],
        None if data.is_empty() => return Vec::new(),
        None => return vec![Violation::at(MANIFEST, "is missing")],
    };
    let mut found = Vec::new();
    let mut listed: Vec<&str> = Vec::new();
    for entry in table
        .get("golden")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let field = |name: &str| entry.get(name).and_then(toml::Value::as_str).unwrap_or_default();
        let path = field("path").trim_end_matches('/');
        if path.is_empty() || field("about").is_empty() {
            found.push(Violation::at(
                MANIFEST,
                format!("every entry has a path and an about (path \"{path}\")"),
            ));
        }
        if tree.file(&format!("{SCRIPTS}{}", field("script"))).is_none() {
            found.push(Violation::at(
                MANIFEST,
                format!("{path}: there is no script `{}`", field("script")),
            ));
        }
        if !data.iter().any(|file| covers(path, file)) {
            found.push(Violation::at(MANIFEST, format!("{path}: there is no such file")));
        }
        listed.push(path);
    }
    for file in data {
        if !listed.iter().any(|path| covers(path, file)) {
            let at = format!("{GOLDEN}{file}");
            found.push(Violation::at(
                &at,
                "is not in MANIFEST.toml: say which script makes it",
            ));
        }
    }
    found
}

/// A path of the manifest stands for a file or for everything in a folder.
fn covers(listed: &str, file: &str) -> bool {
    file.strip_prefix(listed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path of one person's machine works nowhere else, and says more about it than it should.
/// Binary files are searched too: weights and pictures carry metadata.
pub(super) fn no_machine_paths(tree: &Tree) -> Vec<Violation> {
    // The words are put together here so that this file does not hold them.
    let folders: [&[u8]; 5] = [
        concat!("/wo", "rk/").as_bytes(),
        concat!("/ro", "ot/").as_bytes(),
        concat!("/ho", "me/").as_bytes(),
        concat!("/Us", "ers/").as_bytes(),
        concat!("C:\\Us", "ers\\").as_bytes(),
    ];
    let mut found = Vec::new();
    for file in &tree.files {
        for (at, folder) in find_paths(&file.bytes, &folders) {
            let line = file.bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
            let folder = String::from_utf8_lossy(folder);
            found.push(Violation::at(
                &format!("{}:{line}", file.path),
                format!("holds a path below {folder}"),
            ));
        }
    }
    found
}

/// Where the first absolute path below each folder begins: not in the middle of another path or of an address.
fn find_paths<'a>(bytes: &[u8], folders: &[&'a [u8]]) -> Vec<(usize, &'a [u8])> {
    let inside_a_path =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'}' | b'/');
    let mut found: Vec<(usize, &[u8])> = Vec::new();
    // Nearly all bytes of the weights begin no path; looking at each once keeps this rule quick.
    for (at, _) in bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| matches!(byte, b'/' | b'C'))
    {
        let begins = |folder: &&&[u8]| {
            bytes[at..].starts_with(folder)
                && bytes
                    .get(at + folder.len())
                    .is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'.')
        };
        let Some(folder) = folders.iter().find(begins) else {
            continue;
        };
        let inside = at
            .checked_sub(1)
            .is_some_and(|before| inside_a_path(bytes[before]));
        if !inside && found.iter().all(|(_, known)| known != folder) {
            found.push((at, folder));
        }
    }
    found
}

/// A mirror that one network has must not be needed by the next one.
pub(super) fn no_registry_hosts(tree: &Tree) -> Vec<Violation> {
    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
    const NPM: &str = "https://registry.npmjs.org/";
    let settings = [
        concat!("index-", "url"),
        concat!("replace-", "with"),
        concat!("INDEX_", "URL"),
    ];
    let mut found = Vec::new();
    for file in &tree.files {
        let Some(text) = file.text() else { continue };
        for (index, line) in text.lines().enumerate() {
            let quoted = line.split('"').nth_back(1).unwrap_or_default();
            let line = line.trim_start();
            let foreign =
                (file.path.ends_with("Cargo.lock") && line.starts_with("source = ") && quoted != CRATES_IO)
                    || (line.starts_with("\"resolved\":") && !quoted.starts_with(NPM))
                    || settings.iter().any(|setting| line.contains(setting));
            if foreign {
                let at = format!("{}:{}", file.path, index + 1);
                found.push(Violation::at(
                    &at,
                    "names a package source of its own; only crates.io, PyPI and npm",
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Package;

    #[test]
    fn each_crate_is_listed_once() {
        let mut tree = Tree::of_files(&[(
            CRATE_LIST,
            "* `api`: HTTP.\n* `gone`: What was.\n* `jobs`: One.\n* `jobs`: Two.\n",
        )]);
        let package = |folder: &str| Package {
            folder: folder.to_owned(),
            ..Package::default()
        };
        tree.packages = vec![package("api"), package("jobs"), package("engine")];
        let found: Vec<String> = crates_are_listed(&tree)
            .into_iter()
            .map(|Violation(line)| line)
            .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].contains("`jobs` 2 times") && found[1].contains("engine") && found[2].contains("gone")
        );
    }

    #[test]
    fn golden_data_needs_an_entry_and_an_entry_needs_data_and_script() {
        let manifest = "[[golden]]\npath = \"a\"\nscript = \"a.py\"\nabout = \"x\"\n\
                        [[golden]]\npath = \"b.safetensors\"\nscript = \"none.py\"\nabout = \"y\"\n";
        let tree = Tree::of_files(&[
            (MANIFEST, manifest),
            ("tests/golden/a/x.safetensors", ""),
            ("tests/golden/ab.safetensors", ""),
            ("tests/golden/generate/a.py", ""),
        ]);
        let found: Vec<String> = golden_files_are_listed(&tree)
            .into_iter()
            .map(|Violation(line)| line)
            .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("none.py") && found[1].contains("no such file"));
        assert!(found[2].starts_with("tests/golden/ab.safetensors"));
    }

    #[test]
    fn machine_paths_are_found_in_text_and_data() {
        let bad = concat!("x\nsee /wo", "rk/main/a.rs");
        let found = no_machine_paths(&Tree::of_files(&[("a.md", bad)]));
        assert_eq!(
            found,
            [Violation::at("a.md:2", concat!("holds a path below /wo", "rk/"))]
        );
        let fine = concat!(
            "crates/x/wo",
            "rk/a, https://example.com/ho",
            "me/page, /ho",
            "me/{name}"
        );
        assert_eq!(no_machine_paths(&Tree::of_files(&[("a.md", fine)])), []);
    }

    #[test]
    fn a_mirror_is_found() {
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(no_registry_hosts(&Tree::of_files(&[("Cargo.lock", lock)])), []);
        let mirror = "source = \"registry+https://mirror.example/index\"\n";
        assert_eq!(
            no_registry_hosts(&Tree::of_files(&[("Cargo.lock", mirror)])).len(),
            1
        );
        let pip = concat!("pip install --index-", "url x\n");
        assert_eq!(no_registry_hosts(&Tree::of_files(&[("a.sh", pip)])).len(), 1);
    }
}
