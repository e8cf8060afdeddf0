//! `cargo xtask parity`: runs the tests that compare with diffusers and its kin, and writes what they found into a table.
//!
//! The numbers are those of the tests themselves, so that the table cannot claim more than CI checks.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::{shell, tree};

/// `testkit::record` appends to the file that it names.
const VARIABLE: &str = "PENTIMENTO_PARITY";
const RECORD: &str = "target/parity.tsv";
const TABLE: &str = "docs/weights-parity.md";
const TESTS: &str = "package(pentimento-weights) + package(pentimento-models) + package(pentimento-pipeline)";
/// Where whole runs and formats are compared.
const FILES: [&str; 2] = ["crates/pipeline/tests/", "crates/weights/"];
/// Pictures are compared in 0 to 255, everything else in its own unit.
const PICTURE_TOLERANCE: f64 = 1.0;

const HEAD: &str = "\
# Weights: how near to the reference

Written by `cargo xtask parity` from what the tests compare; each case is a golden run that a script of `tests/golden/generate` made with
diffusers 0.42, or with the published formula in PyTorch where diffusers lacks or breaks a format.
A line stands for all comparisons of a case: every tensor on the way, and the picture where there is one.

* **of tolerance**: the largest share that any of its differences takes of what `crates/testkit/src/tolerance.rs` allows; 1 would be the limit.
* **picture**: the largest difference of any value and the mean one, in 0 to 255.
";

/// What is known of one case.
#[derive(Debug, Default)]
struct Case {
    comparisons: usize,
    share: f64,
    picture: Option<(f64, f64)>,
}

/// Runs the tests and writes the table.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = tree::root();
    let record = root.join(RECORD);
    let _ = fs_err::remove_file(&record);
    let mut tests = shell::cargo(&root);
    tests.args(["nextest", "run", "--workspace", "--locked", "-E", TESTS]);
    shell::run(tests.env(VARIABLE, &record))?;
    let text = fs_err::read_to_string(&record)?;
    let mut files: BTreeMap<String, BTreeMap<String, Case>> = BTreeMap::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let &[file, what, max, mean, allowed_max, allowed_mean] = parts.as_slice() else {
            anyhow::bail!("`{line}` in {RECORD} is no comparison");
        };
        // Layers and single forwards are tested, too, and would make a long table of little use.
        if !FILES.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        let number = |text: &str| {
            text.parse::<f64>()
                .with_context(|| format!("`{line}` in {RECORD}"))
        };
        let (max, mean) = (number(max)?, number(mean)?);
        let (allowed_max, allowed_mean) = (number(allowed_max)?, number(allowed_mean)?);
        let name = what.split_once(": ").map_or(what, |(case, _)| case);
        let case = files
            .entry(file.to_owned())
            .or_default()
            .entry(name.to_owned())
            .or_default();
        case.comparisons += 1;
        case.share = case
            .share
            .max(share(max, allowed_max))
            .max(share(mean, allowed_mean));
        if allowed_max >= PICTURE_TOLERANCE {
            let (most, average) = case.picture.unwrap_or_default();
            case.picture = Some((most.max(max), average.max(mean)));
        }
    }
    fs_err::write(root.join(TABLE), table(&files))?;
    println!("xtask parity: {TABLE} is written");
    Ok(())
}

/// Exact values may differ by nothing at all.
fn share(found: f64, allowed: f64) -> f64 {
    if allowed > 0.0 { found / allowed } else { found }
}

fn table(files: &BTreeMap<String, BTreeMap<String, Case>>) -> String {
    let mut text = HEAD.to_owned();
    for (file, cases) in files {
        text +=
            &format!("\n## `{file}`\n\n| case | comparisons | of tolerance | picture |\n|---|---|---|---|\n");
        for (name, case) in cases {
            let picture = case
                .picture
                .map_or_else(String::new, |(max, mean)| format!("{max:.2}, {mean:.4}"));
            let name = name.replace('|', "\\|");
            text += &format!(
                "| {name} | {} | {:.3} | {picture} |\n",
                case.comparisons, case.share
            );
        }
    }
    text
}
