//! The kernels beside candle's own operations, on the shapes of Stable Diffusion 1.5.
//!
//! ```text
//! cargo bench -p pentimento-kernels -- linear
//! ```
//!
//! criterion's "elem/s" are operations a second, counted by the definition and not by the algorithm: a convolution that
//! needs fewer of them may exceed what the processor can do.

// The server's own, because every kernel allocates its result.
#[path = "../../cli/src/allocator.rs"]
mod allocator;
#[expect(
    dead_code,
    reason = "the algorithms' own counts and bfloat16 are for the examples"
)]
mod cases;

use std::time::Duration;

use cases::{Case, Work};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let cases = cases::all();
    for cases in cases.chunk_by(|a, b| a.kernel == b.kernel) {
        let mut group = criterion.benchmark_group(cases[0].kernel);
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2));
        for case in cases {
            measure(&mut group, case);
        }
        group.finish();
    }
    criterion.final_summary();
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    group.throughput(throughput(case.work));
    let contestants = [("ours", Some(&case.ours)), ("candle", case.candle.as_ref())];
    for (name, make) in contestants {
        let Some(make) = make else { continue };
        // Operands are made only for what the command line asks for.
        group.bench_function(BenchmarkId::new(name, &case.shape), |bencher| {
            let run = make();
            bencher.iter(run);
        });
    }
}

/// Operations, or bytes where nothing is computed.
fn throughput(work: Work) -> Throughput {
    match work.direct {
        0 => Throughput::Bytes(work.bytes as u64),
        operations => Throughput::Elements(operations as u64),
    }
}
