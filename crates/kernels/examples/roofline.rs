//! Prints how near each kernel comes to what this machine can do, as the tables of `benches/RESULTS.md`.
//!
//! ```text
//! cargo run --release -p pentimento-kernels --example roofline [part of a kernel's name]
//! ```
//!
//! `RAYON_NUM_THREADS` says how many threads are "all".

#![expect(clippy::print_stdout, reason = "a command of the workbench that prints")]

// The server's own, because every kernel allocates its result.
#[path = "../../cli/src/allocator.rs"]
mod allocator;
#[expect(
    dead_code,
    reason = "candle's side is for the bench, bfloat16 for the other example"
)]
#[path = "../benches/cases/mod.rs"]
mod cases;

use std::hint::black_box;
use std::time::{Duration, Instant};

use cases::Case;
use pentimento_kernels::{Isa, multiply_adds, pair_multiply_adds};
use rayon::prelude::*;

/// Numbers of a copied buffer: 256 MiB, more than last caches hold.
const COPIED: usize = 64 << 20;

/// Repetitions of one measurement, and how long they may take together once there are three.
const REPETITIONS: usize = 31;
const PATIENCE: Duration = Duration::from_millis(1500);

/// What bounds every kernel, with all threads.
#[derive(Clone, Copy)]
struct Machine {
    /// Operations a second.
    peak: f64,
    /// Bytes a second.
    bandwidth: f64,
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let machine = Machine {
        peak: print_peaks(),
        bandwidth: print_bandwidth(),
    };
    println!(
        "| kernel | shape | GFLOP | MB | ms | fastest | GFLOP/s by definition | share of peak | share of bandwidth | bound |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|---|");
    for case in cases::all() {
        if case.kernel.contains(&wanted) {
            print_case(machine, &case);
        }
    }
}

/// The table of multiply-adds, and the last line's number for all threads.
fn print_peaks() -> f64 {
    let threads = rayon::current_num_threads();
    println!("| instructions | GFLOP/s, 1 thread | GFLOP/s, {threads} threads |");
    println!("|---|--:|--:|");
    let mut last = 0.0;
    for isa in Isa::available() {
        let one = best(|chains| multiply_adds(isa, chains, ROUNDS).0);
        last = best(|chains| {
            rayon::broadcast(|_| multiply_adds(isa, chains, ROUNDS).0)
                .iter()
                .sum()
        });
        println!("| {isa} | {:.0} | {:.0} |", one / 1e9, last / 1e9);
        print_pairs_peak(isa);
    }
    println!();
    last
}

/// The line of the set's unit for products of bfloat16, where it has one. The shares of the table are of f32.
fn print_pairs_peak(isa: Isa) {
    let run = |chains| pair_multiply_adds(isa, chains, ROUNDS).map_or(0, |(operations, _)| operations);
    if run(1) == 0 {
        return;
    }
    let one = best(run);
    let all = best(|chains| rayon::broadcast(|_| run(chains)).iter().sum());
    println!(
        "| {isa}, products of bfloat16 | {:.0} | {:.0} |",
        one / 1e9,
        all / 1e9
    );
}

/// Less than a millisecond, so that some runs are not interrupted on a machine that is not quite idle.
const ROUNDS: usize = 1 << 18;

/// The most operations a second, of several runs with more chains and with fewer.
fn best(run: impl Fn(usize) -> usize) -> f64 {
    let speed = |chains| {
        let mut operations = 0;
        let seconds = seconds(|| operations = black_box(run(chains)));
        operations as f64 / seconds
    };
    let runs = (0..100).flat_map(|_| [6, 12, 24]);
    runs.map(speed).fold(0.0, f64::max)
}

fn print_bandwidth() -> f64 {
    let from = vec![1.0_f32; COPIED];
    let mut to = vec![0.0_f32; COPIED];
    let threads = rayon::current_num_threads();
    println!("| copying | GB/s read and written |");
    println!("|---|--:|");
    let mut last = 0.0;
    for threads in [1, threads] {
        let part = COPIED.div_ceil(threads);
        let mut copy = || {
            let parts = to.par_chunks_mut(part).zip(from.par_chunks(part));
            parts.for_each(|(to, from)| to.copy_from_slice(from));
            black_box(&to);
        };
        let fastest = (0..8).map(|_| seconds(&mut copy)).fold(f64::INFINITY, f64::min);
        last = 2.0 * size_of_val(from.as_slice()) as f64 / fastest;
        println!("| {threads} threads | {:.1} |", last / 1e9);
    }
    println!();
    last
}

fn print_case(machine: Machine, case: &Case) {
    let run = (case.ours)();
    let (seconds, fastest) = median(run);
    let work = case.work;
    let computing = work.done as f64 / machine.peak;
    let moving = work.bytes as f64 / machine.bandwidth;
    println!(
        "| {} | {} | {:.2} | {:.1} | {:.2} | {:.2} | {:.0} | {:.0} % | {:.0} % | {} |",
        case.kernel,
        case.shape,
        work.done as f64 / 1e9,
        work.bytes as f64 / 1e6,
        seconds * 1e3,
        fastest * 1e3,
        work.direct as f64 / seconds / 1e9,
        100.0 * computing / seconds,
        100.0 * moving / seconds,
        if computing > moving { "peak" } else { "bandwidth" }
    );
}

/// The median of several runs, after one that does not count, and the fastest.
fn median(mut run: impl FnMut()) -> (f64, f64) {
    run();
    let mut times = Vec::new();
    while times.len() < 3 || times.len() < REPETITIONS && times.iter().sum::<f64>() < PATIENCE.as_secs_f64() {
        times.push(seconds(&mut run));
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is this machine's time"
)]
fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}
