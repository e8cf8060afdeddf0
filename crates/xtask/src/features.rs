//! `cargo xtask features`: clippy and tests of the features that are off by default. It is no part of `.ci/run`, because what
//! they bring (130 crates for `c2pa`) takes minutes to compile.

use crate::{shell, tree};

/// As the binary's crate names them.
const FEATURES: &str = "pentimento-cli/c2pa,pentimento-cli/otlp";
/// What is there with a feature only; `cargo test` takes words that are in the names of tests or their modules.
const TESTS: [&str; 3] = ["manifest_signer", "signing", "telemetry"];

/// Lints all and runs the tests that are there with these features only.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = tree::root();
    let of = |arguments: &[&str]| {
        let mut cargo = shell::cargo(&root);
        cargo
            .args(arguments)
            .args(["--workspace", "--locked", "--features", FEATURES]);
        cargo
    };
    shell::run(of(&["clippy"]).args(["--all-targets", "--", "-D", "warnings"]))?;
    shell::run(
        of(&["test"])
            .args(["--lib", "--bins", "--test", "integration", "--"])
            .args(TESTS),
    )
}
