//! `cargo xtask check`: everything that must hold before the tests are worth running, cheapest first.

use crate::{shell, tidy, tree};

/// Stops at the first part that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = tree::root();
    let step = |what: &str| println!("xtask check: {what}");
    step("formatting");
    shell::run(shell::cargo(&root).args(["fmt", "--all", "--check"]))?;
    step("tidy rules");
    tidy::run()?;
    step("clippy");
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    shell::run(shell::cargo(&root).args(clippy))?;
    step("documentation");
    let doc = ["doc", "--workspace", "--no-deps", "--locked"];
    shell::run(shell::cargo(&root).args(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    step("all good");
    Ok(())
}
