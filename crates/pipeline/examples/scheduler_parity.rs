//! Prints `docs/scheduler-parity.md`: every scheduler's largest and mean difference from diffusers' pictures.
//!
//! ```text
//! cargo run -p pentimento-pipeline --example scheduler_parity > docs/scheduler-parity.md
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command of the workbench that prints"
)]

#[path = "../tests/support/parity.rs"]
mod parity_runs;
#[path = "../tests/support/mod.rs"]
mod support;

use parity_runs::{DEFINED_BY_US, Run, run_all};
use pentimento_types::SchedulerKind;

const HEAD: &str = "# Schedulers beside diffusers

Made by `cargo run -p pentimento-pipeline --example scheduler_parity > docs/scheduler-parity.md`; do not edit.

Each cell is the largest and the mean difference from the picture of diffusers' `StableDiffusionImg2ImgPipeline`, in levels of 0 to 255, \
on the tiny model of `tests/golden/models` with 6 steps.
The bounds are 2 and 0.1; the test `fifteen_schedulers_give_the_pictures_of_diffusers` holds them.
Columns are strength / guidance, cells largest / mean.
`karras ignored` means that diffusers has no Karras spacing for it either.

| scheduler | spacing | 0.4 / 1 | 0.4 / 7.5 | 0.7 / 1 | 0.7 / 7.5 | 1.0 / 1 | 1.0 / 7.5 |
|---|---|---|---|---|---|---|---|";

/// Strength and guidance of each column.
const COLUMNS: [(f64, f64); 6] = [
    (0.4, 1.0),
    (0.4, 7.5),
    (0.7, 1.0),
    (0.7, 7.5),
    (1.0, 1.0),
    (1.0, 7.5),
];

fn main() {
    let runs = run_all(&support::tiny("tiny"));
    println!("{HEAD}");
    for kind in SchedulerKind::ALL {
        if DEFINED_BY_US.contains(kind) {
            println!(
                "| {kind} | both | defined by us: [ADR 0003](adr/0003-schedulers-that-diffusers-img2img-cannot-run.md) | | | | | |"
            );
            continue;
        }
        for spacing in ["plain", "karras"] {
            let cells = COLUMNS.map(|(strength, guidance)| {
                let same = |run: &&Run| {
                    (run.kind, run.spacing) == (*kind, spacing)
                        && (run.strength, run.guidance) == (strength, guidance)
                };
                runs.iter().find(same).map_or_else(
                    || "karras ignored".to_owned(),
                    |run| format!("{} / {:.4}", run.difference.max, run.difference.mean),
                )
            });
            println!("| {kind} | {spacing} | {} |", cells.join(" | "));
        }
    }
}
