//! Short and long jobs of one caller, in two sizes, coming by chance.

use std::time::Duration;

use super::world::{Script, World};
use crate::{BatchPolicy, ImageWork};

/// One arrival of [`mixed_load`].
struct Came {
    at: Duration,
    script: Script,
    alone: Duration,
}

/// Seven of ten LCM jobs of four steps, three of ten of 31 guided steps, in two sizes, at random moments, so many that the
/// device is busy for seven tenths of the time. All of one caller.
fn mixed_load(policy: BatchPolicy, count: u32) -> Vec<Came> {
    let guided = ImageWork {
        evaluations: 31,
        rows: 2,
    };
    let scripts: Vec<(Script, Duration)> = [(false, 64), (false, 96), (true, 64), (true, 96)]
        .map(|(is_long, side)| {
            let short = Script {
                side,
                slices: 4,
                finish_slices: 4,
                ..Script::lcm()
            };
            let script = if is_long {
                Script {
                    work: guided,
                    ..short
                }
            } else {
                short
            };
            let mut world = World::new(policy);
            let id = world.admit(1, script.clone());
            world.run();
            let alone = world.latency(id);
            (script, alone)
        })
        .into();
    // Knuth's generator: the same on every machine.
    let mut state = 0_u64;
    let mut chance = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(state >> 32).expect("32 bits")) / f64::from(u32::MAX)
    };
    let mean = |kinds: [usize; 2]| {
        kinds
            .iter()
            .map(|kind| scripts[*kind].1.as_secs_f64())
            .sum::<f64>()
            / 2.0
    };
    let gap = (0.7 * mean([0, 1]) + 0.3 * mean([2, 3])) / 0.7;
    let mut at = Duration::ZERO;
    (0..count)
        .map(|_| {
            at += Duration::from_secs_f64(gap * -(1.0 - chance()).max(1e-9).ln());
            let (is_long, is_large) = (chance() < 0.3, chance() < 0.5);
            let (script, alone) = scripts[usize::from(is_long) * 2 + usize::from(is_large)].clone();
            Came { at, script, alone }
        })
        .collect()
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = f64::from(u32::try_from(sorted.len() - 1).expect("few"));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    sorted[(part * last) as usize]
}

#[test]
fn short_jobs_of_a_caller_are_nearly_as_fast_as_alone_under_a_mixed_load() {
    let policy = BatchPolicy::cpu();
    let load = mixed_load(policy, 2000);
    let mut world = World::new(policy);
    let mut coming = load.iter().zip(1..).peekable();
    let mut ids = Vec::new();
    loop {
        while let Some((came, number)) = coming.next_if(|(came, _)| came.at <= world.elapsed) {
            ids.push(world.admit(number, came.script.clone()));
        }
        if world.batcher.is_empty() {
            let Some((came, _)) = coming.peek() else { break };
            world.elapsed = came.at;
        } else {
            assert!(world.tick());
        }
    }
    // The same load in the order of arrival, one after the other.
    let mut free_at = Duration::ZERO;
    let (mut short, mut short_in_order, mut long) = (Vec::new(), Vec::new(), Vec::new());
    let mut beyond_an_act = Vec::new();
    let mut in_order_ends = Duration::ZERO;
    for (came, id) in load.iter().zip(&ids) {
        free_at = free_at.max(came.at) + came.alone;
        in_order_ends = free_at;
        let (_, ended) = world.ledgers[id].ended.expect("all have ended");
        let times = |until: Duration| (until - came.at).as_secs_f64() / came.alone.as_secs_f64();
        if came.script.work.rows == 1 {
            beyond_an_act.push(times(ended.saturating_sub(world.longest_act).max(came.at)));
            short.push(times(ended));
            short_in_order.push(times(free_at));
        } else {
            long.push(times(ended));
        }
    }
    for times in [&mut short, &mut beyond_an_act, &mut short_in_order, &mut long] {
        times.sort_by(f64::total_cmp);
    }
    let (p50, p95) = (percentile(&short, 0.5), percentile(&short, 0.95));
    let in_order = percentile(&short_in_order, 0.95);
    println!(
        "short: p50 {p50:.2} p95 {p95:.2} worst {:.2} times alone, without one act p95 {:.2}, in the order of arrival p95 {in_order:.2}; long: p50 {:.2} \
         p95 {:.2}; the device was busy until {:.3} of that",
        short.last().expect("some"),
        percentile(&beyond_an_act, 0.95),
        percentile(&long, 0.5),
        percentile(&long, 0.95),
        world.elapsed.as_secs_f64() / in_order_ends.as_secs_f64()
    );
    // What has begun is not interrupted.
    let beyond_an_act = percentile(&beyond_an_act, 0.95);
    assert!(
        beyond_an_act <= 2.5,
        "{beyond_an_act:.2} times alone beside the longest act"
    );
    assert!(p95 * 2.0 <= in_order, "{p95:.2} and {in_order:.2} times alone");
    assert!(world.elapsed.as_secs_f64() <= 1.01 * in_order_ends.as_secs_f64());
}
