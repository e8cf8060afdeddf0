//! The rules of the repository that a program can check, each with its reason.
//!
//! A rule is a function from the tree to every violation in it; the tests at the end run all of them on the real one.

mod circles;
mod documents;
mod layers;
mod modules;
mod paths;
mod scan;
mod sources;
mod words;

use crate::tree::Tree;

/// One place where a rule is broken, as one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(String);

impl Violation {
    fn at(path: &str, what: impl std::fmt::Display) -> Self {
        Self(format!("{path}: {what}"))
    }
}

/// A rule: its name, and the function that finds what breaks it.
type Rule = (&'static str, fn(&Tree) -> Vec<Violation>);

const RULES: &[Rule] = &[
    ("dependencies follow the layers", layers::dependency_direction),
    (
        "candle stays in the numerics crates",
        layers::candle_only_in_numerics,
    ),
    ("only gpu names the bindings to CUDA", layers::cuda_only_in_gpu),
    ("numerics crates know no async", layers::numerics_are_not_async),
    (
        "a crate's folder is its package's name",
        layers::folder_is_package,
    ),
    ("manifests inherit versions and lints", layers::manifests_inherit),
    (
        "every source file begins with what it is for",
        sources::module_docs,
    ),
    ("an open end names its issue", sources::open_ends_name_an_issue),
    ("file names say what is inside", sources::telling_names),
    (
        "device features, unsafe code, kernels and candle stay in their places",
        sources::fenced_words,
    ),
    (
        "crates/README.md lists each crate once",
        documents::crates_are_listed,
    ),
    (
        "every golden file is in the manifest",
        documents::golden_files_are_listed,
    ),
    (
        "documents name files that exist",
        paths::documents_name_real_files,
    ),
    (
        "files of a crate use each other one way only",
        circles::files_use_each_other_one_way,
    ),
    ("retired names stay away", words::retired_names_stay_away),
    ("no file knows a machine", documents::no_machine_paths),
    ("no file names a package mirror", documents::no_registry_hosts),
];

/// Checks every rule and lists every violation, then mentions the longest files.
pub(crate) fn run() -> anyhow::Result<()> {
    let tree = Tree::load()?;
    let mut violations = 0;
    for (name, rule) in RULES {
        let found = rule(&tree);
        violations += found.len();
        if !found.is_empty() {
            println!("tidy: {name}");
            for Violation(line) in &found {
                println!("  {line}");
            }
        }
    }
    for note in circles::untied(&tree) {
        println!("tidy: note: {note}");
    }
    for (path, lines) in sources::long_files(&tree) {
        println!(
            "tidy: note: {path} has {lines} lines; the aim is {}",
            sources::AIM_LINES
        );
    }
    anyhow::ensure!(violations == 0, "tidy found {violations} violations");
    println!("tidy: {} rules hold in {} files", RULES.len(), tree.files.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_own_rules() {
        let tree = Tree::load().unwrap();
        assert!(tree.files.len() > 20, "the tree was not read");
        let broken: Vec<String> = RULES
            .iter()
            .flat_map(|(name, rule)| {
                rule(&tree)
                    .into_iter()
                    .map(move |Violation(line)| format!("{name}: {line}"))
            })
            .collect();
        assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    }
}
