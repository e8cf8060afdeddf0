//! `cargo xtask test`: the one command that runs every test of the repository.
//!
//! The test runner comes last, so that its own summary is the last thing printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{clients, shell, tree};

/// Where the prepared clients are, for the tests that use them.
const CLIENTS_VARIABLE: &str = "PENTIMENTO_TEST_CLIENTS";
/// Where the program of the next version is, for tests of upgrades.
const NEXT_VARIABLE: &str = "TEST_NEXT_VERSION";

/// Prepares the clients unless `offline`, then runs all tests.
pub(crate) fn run(offline: bool, runner_args: &[String]) -> anyhow::Result<()> {
    let root = tree::root();
    let folder = root.join("target/test-clients");
    let ready = if offline {
        clients::ready(&folder)
    } else {
        clients::prepare(&folder, &root.join("tests/clients"))
    };
    let runner = if has_nextest() {
        ["nextest", "run"].as_slice()
    } else {
        ["test"].as_slice()
    };
    let mut tests = shell::cargo(&root);
    tests
        .args(runner)
        .args(["--workspace", "--locked"])
        .args(runner_args);
    // The tests expect a Python client where the folder is named; the JavaScript one may be missing.
    if !ready.iter().any(|client| clients::is_python(client)) {
        println!(
            "xtask test: no Python client of a vendor is prepared; tests with real clients pass without running"
        );
        tests.env_remove(CLIENTS_VARIABLE);
    } else {
        println!("xtask test: tests with real clients use {}", ready.join(", "));
        tests.env(CLIENTS_VARIABLE, &folder);
    }
    tests.env(NEXT_VARIABLE, next_version(&root)?);
    shell::run(&mut tests)
}

/// Builds the program that takes itself for the next version. Two crates of it differ.
fn next_version(root: &Path) -> anyhow::Result<PathBuf> {
    let mut build = shell::cargo(root);
    build.args([
        "build",
        "--workspace",
        "--bin",
        "pentimento",
        // Any test will do: with one, libraries are those that the tests have, and compiled already.
        "--test",
        "sizes",
        "--locked",
        "--features",
        "pentimento-cli/next-envelope",
    ]);
    shell::run(&mut build)?;
    let program = root.join("target/test-next-version");
    fs_err::copy(root.join("target/debug/pentimento"), &program)?;
    Ok(program)
}

fn has_nextest() -> bool {
    Command::new("cargo-nextest")
        .args(["nextest", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
