//! Which crate may use which: the table of the architecture, with the bands vocabulary, numerics, serving and edge.

use super::Violation;
use crate::tree::{Package, Tree};

/// Where a crate stands. A test may reach down through the bands, the crate itself only along its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Band {
    Vocabulary,
    Numerics,
    Serving,
    Edge,
    /// Tools around the product; nothing that ships may use them.
    Workbench,
}

/// A crate, its band, and the crates of the workspace that it may use.
struct Row(&'static str, Band, &'static [&'static str]);

/// The table of ARCHITECTURE.md. A new edge is a decision, so it is made here first.
const LAYERS: &[Row] = &[
    Row("types", Band::Vocabulary, &[]),
    Row("catalog", Band::Vocabulary, &["types"]),
    Row("gpu", Band::Numerics, &["types"]),
    Row("kernels", Band::Numerics, &["gpu"]),
    Row("demo-model", Band::Numerics, &[]),
    Row("embedded-nets", Band::Numerics, &[]),
    Row("schedulers", Band::Numerics, &["types"]),
    Row("weights", Band::Numerics, &["types"]),
    Row("models", Band::Numerics, &["types", "kernels"]),
    Row(
        "pipeline",
        Band::Numerics,
        &[
            "types",
            "catalog",
            "schedulers",
            "weights",
            "models",
            "demo-model",
            "embedded-nets",
        ],
    ),
    Row("engine", Band::Serving, &["types", "catalog", "pipeline"]),
    Row("jobs", Band::Serving, &["types"]),
    Row("cluster", Band::Serving, &["types", "jobs"]),
    Row("storage", Band::Serving, &["types"]),
    Row("outbound", Band::Serving, &["types"]),
    Row("hub", Band::Serving, &["types", "catalog"]),
    Row(
        "service",
        Band::Serving,
        &["types", "catalog", "engine", "jobs", "storage", "outbound", "hub"],
    ),
    Row("api", Band::Edge, &["types", "service"]),
    Row(
        "cli",
        Band::Edge,
        &[
            "types",
            "catalog",
            "gpu",
            "kernels",
            "schedulers",
            "weights",
            "models",
            "pipeline",
            "engine",
            "jobs",
            "cluster",
            "storage",
            "outbound",
            "hub",
            "service",
            "api",
        ],
    ),
    Row("testkit", Band::Workbench, &["types"]),
    Row(
        "gpu-check",
        Band::Workbench,
        &["types", "catalog", "gpu", "pipeline"],
    ),
    Row("xtask", Band::Workbench, &[]),
];

const CANDLE_CRATES: &[&str] = &["kernels", "weights", "models", "pipeline", "testkit"];

const ASYNC_CRATES: &[&str] = &[
    "tokio",
    "futures",
    "futures-util",
    "futures-core",
    "async-trait",
    "async-std",
    "smol",
    "tower",
];

fn row_of(folder: &str) -> Option<&'static Row> {
    LAYERS.iter().find(|row| row.0 == folder)
}

/// The folder of a workspace crate, when the name is one of ours.
fn ours(dependency: &str) -> Option<&str> {
    dependency.strip_prefix("pentimento-")
}

fn manifest(package: &Package) -> String {
    format!("crates/{}/Cargo.toml", package.folder)
}

/// Numerics never know serving, the dialects never know each other's crates, and nothing knows the edge.
pub(super) fn dependency_direction(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in &tree.packages {
        let at = manifest(package);
        let Some(Row(_, band, allowed)) = row_of(&package.folder) else {
            found.push(Violation::at(
                &at,
                "the crate has no row in the layer table (xtask/src/tidy/layers.rs)",
            ));
            continue;
        };
        for used in package.dependencies.iter().filter_map(|name| ours(name)) {
            if !allowed.contains(&used) {
                found.push(Violation::at(
                    &at,
                    format!(
                        "`{}` may not depend on `{used}`; it may use {allowed:?}",
                        package.folder
                    ),
                ));
            }
        }
        for used in package.dev_dependencies.iter().filter_map(|name| ours(name)) {
            let below = row_of(used).is_some_and(|row| row.1 <= *band);
            if used != "testkit" && !below {
                found.push(Violation::at(
                    &at,
                    format!(
                        "the tests of `{}` may not use `{used}`, which stands above it",
                        package.folder
                    ),
                ));
            }
        }
    }
    found
}

/// Tensors never leave numerics, so that everything above can be tested without them.
pub(super) fn candle_only_in_numerics(tree: &Tree) -> Vec<Violation> {
    let names_candle = |package: &&Package| {
        let mut all = package.dependencies.iter().chain(&package.dev_dependencies);
        all.any(|name| name.starts_with("candle"))
    };
    tree.packages
        .iter()
        .filter(names_candle)
        .filter(|package| !CANDLE_CRATES.contains(&package.folder.as_str()))
        .map(|package| Violation::at(&manifest(package), format!("only {CANDLE_CRATES:?} name candle")))
        .collect()
}

/// The bindings to CUDA are opened at run time by one crate, so that everything else builds and runs without.
pub(super) fn cuda_only_in_gpu(tree: &Tree) -> Vec<Violation> {
    let names_cuda = |package: &&Package| {
        let mut all = package.dependencies.iter().chain(&package.dev_dependencies);
        all.any(|name| name == "cudarc")
    };
    tree.packages
        .iter()
        .filter(names_cuda)
        .filter(|package| package.folder != "gpu")
        .map(|package| Violation::at(&manifest(package), "only gpu names cudarc"))
        .collect()
}

/// One thread owns the device; code that computes must not be able to yield in the middle.
pub(super) fn numerics_are_not_async(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in &tree.packages {
        if row_of(&package.folder).is_none_or(|row| row.1 != Band::Numerics) {
            continue;
        }
        let all = package.dependencies.iter().chain(&package.dev_dependencies);
        for name in all.filter(|name| ASYNC_CRATES.contains(&name.as_str())) {
            found.push(Violation::at(
                &manifest(package),
                format!("a numerics crate may not depend on {name}"),
            ));
        }
    }
    found
}

/// One name for one thing: the folder, the package and the log target agree.
pub(super) fn folder_is_package(tree: &Tree) -> Vec<Violation> {
    tree.packages
        .iter()
        .filter(|package| {
            package.name != format!("pentimento-{}", package.folder)
                && !(package.folder == "xtask" && package.name == "xtask")
        })
        .map(|package| {
            let wanted = format!(
                "the package is `{}`; its folder asks for `pentimento-{}`",
                package.name, package.folder
            );
            Violation::at(&manifest(package), wanted)
        })
        .collect()
}

/// One version of each dependency and one lint set for all crates: both live in the root manifest.
pub(super) fn manifests_inherit(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in &tree.packages {
        let at = manifest(package);
        let Some(text) = tree.file(&at).and_then(|file| file.text()) else {
            found.push(Violation::at(&at, "cannot be read"));
            continue;
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                found.push(Violation::at(&at, error));
                continue;
            }
        };
        let inherits =
            |value: &toml::Value| value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
        if !table.get("lints").is_some_and(inherits) {
            found.push(Violation::at(&at, "needs `[lints] workspace = true`"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, _) in dependencies.iter().filter(|(_, value)| !inherits(value)) {
                found.push(Violation::at(
                    &at,
                    format!("{name} needs `workspace = true`; versions stand in the root"),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::SourceFile;

    fn package(folder: &str, dependencies: &[&str], dev: &[&str]) -> Package {
        Package {
            name: format!("pentimento-{folder}"),
            folder: folder.to_owned(),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
            dev_dependencies: dev.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn tree(package: Package) -> Tree {
        Tree {
            files: Vec::new(),
            packages: vec![package],
        }
    }

    #[test]
    fn an_upward_edge_is_found_and_a_downward_one_is_not() {
        let up = tree(package("models", &["pentimento-service"], &["pentimento-api"]));
        assert_eq!(dependency_direction(&up).len(), 2);
        let down = tree(package(
            "models",
            &["pentimento-types", "serde"],
            &["pentimento-weights", "pentimento-testkit"],
        ));
        assert_eq!(dependency_direction(&down), []);
        assert_eq!(
            dependency_direction(&tree(package("unheard-of", &[], &[]))).len(),
            1
        );
    }

    #[test]
    fn the_table_names_only_crates_of_lower_or_equal_bands() {
        for Row(name, band, allowed) in LAYERS {
            for used in *allowed {
                let row = row_of(used).unwrap_or_else(|| panic!("{name} may use {used}, which has no row"));
                assert!(row.1 <= *band, "{name} may use {used}, which stands above it");
            }
        }
    }

    #[test]
    fn candle_and_tokio_are_found_where_they_may_not_be() {
        let named_in = |folder, dependencies: &[&str], dev: &[&str]| {
            candle_only_in_numerics(&tree(package(folder, dependencies, dev))).len()
        };
        assert_eq!(named_in("api", &[], &["candle-core"]), 1);
        assert_eq!(named_in("engine", &["candle-core"], &[]), 1);
        assert_eq!(named_in("pipeline", &["candle-core"], &[]), 0);
        assert_eq!(
            numerics_are_not_async(&tree(package("weights", &["tokio"], &[]))).len(),
            1
        );
        assert_eq!(
            numerics_are_not_async(&tree(package("engine", &["tokio"], &[]))),
            []
        );
    }

    #[test]
    fn cuda_is_found_where_it_may_not_be() {
        assert_eq!(
            cuda_only_in_gpu(&tree(package("kernels", &["cudarc"], &[]))).len(),
            1
        );
        assert_eq!(cuda_only_in_gpu(&tree(package("gpu", &["cudarc"], &[]))), []);
    }

    #[test]
    fn a_folder_that_is_not_its_package_is_found() {
        let mut odd = package("api", &[], &[]);
        odd.name = "pentimento-http".to_owned();
        assert_eq!(folder_is_package(&tree(odd)).len(), 1);
        assert_eq!(folder_is_package(&tree(package("api", &[], &[]))), []);
    }

    #[test]
    fn an_own_version_and_missing_lints_are_found() {
        let manifest = "[dependencies]\nserde = \"1\"\ntoml.workspace = true\n";
        let mut tree = tree(package("api", &[], &[]));
        tree.files = vec![SourceFile {
            path: "crates/api/Cargo.toml".to_owned(),
            bytes: manifest.into(),
        }];
        assert_eq!(manifests_inherit(&tree).len(), 2);
    }
}
