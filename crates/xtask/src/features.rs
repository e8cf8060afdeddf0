//! `cargo xtask features`: clippy and tests of the features that are off by default. `.ci/run` does the first half, so that no
//! change breaks them unseen: compiling what they bring (130 crates for `c2pa`), and the tests with it, takes minutes.

use crate::{shell, tree};

/// As the binary's crate names them.
const FEATURES: &str = "pentimento-cli/c2pa,pentimento-cli/otlp";
/// What is there with a feature only; `cargo test` takes words that are in the names of tests or their modules.
const TESTS: [&str; 3] = ["manifest_signer", "signing", "telemetry"];

/// Lints all and, unless that is `lint` alone, runs the tests that are there with these features only.
pub(crate) fn run(lint: bool) -> anyhow::Result<()> {
    let root = tree::root();
    let of = |arguments: &[&str]| {
        let mut cargo = shell::cargo(&root);
        cargo
            .args(arguments)
            .args(["--workspace", "--locked", "--features", FEATURES]);
        cargo
    };
    shell::run(of(&["clippy"]).args(["--all-targets", "--", "-D", "warnings"]))?;
    if lint {
        return Ok(());
    }
    shell::run(
        of(&["test"])
            .args(["--lib", "--bins", "--test", "integration", "--"])
            .args(TESTS),
    )
}
