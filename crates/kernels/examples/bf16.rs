//! Prints what numbers rounded to bfloat16 gain: each kernel that offers them, in turns with itself in f32.
//!
//! ```text
//! cargo run --release -p pentimento-kernels --example bf16 [part of a kernel's name or shape]
//! ```
//!
//! `RAYON_NUM_THREADS` says with how many threads.

#![expect(clippy::print_stdout, reason = "a command of the workbench that prints")]

// The server's own, because every kernel allocates its result.
#[path = "../../cli/src/allocator.rs"]
mod allocator;
#[expect(
    dead_code,
    reason = "candle's side is for the bench, counts are for the roofline"
)]
#[path = "../benches/cases/mod.rs"]
mod cases;

use std::time::Instant;

use pentimento_kernels::Isa;

/// Turns of each.
const TURNS: usize = 9;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("{}, {} threads", Isa::detect(), rayon::current_num_threads());
    println!("| kernel | shape | f32, ms | bf16, ms | ratio of medians | of the fastest |");
    println!("|---|---|--:|--:|--:|--:|");
    for case in cases::all() {
        let Some(in_bf16) = &case.in_bf16 else { continue };
        if !case.kernel.contains(&wanted) && !case.shape.contains(&wanted) {
            continue;
        }
        let runs = [(case.ours)(), in_bf16()];
        let mut times = [Vec::new(), Vec::new()];
        for turn in 0..=TURNS {
            for (run, times) in runs.iter().zip(&mut times) {
                let taken = seconds(run);
                if turn > 0 {
                    times.push(taken);
                }
            }
        }
        for times in &mut times {
            times.sort_by(f64::total_cmp);
        }
        let [f32s, bf16s] = times;
        let middle = TURNS / 2;
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            case.kernel,
            case.shape,
            f32s[middle] * 1e3,
            bf16s[middle] * 1e3,
            f32s[middle] / bf16s[middle],
            f32s[0] / bf16s[0],
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is this machine's time"
)]
fn seconds(run: impl Fn()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}
