//! What holds for every mix of jobs, policies, faults and cancellations.

use std::collections::BTreeSet;
use std::time::Duration;

use pentimento_types::JobId;
use proptest::prelude::*;

use super::world::{End, Script, Trouble, World, model_key};
use crate::{BatchPolicy, ImageWork};

/// A job, the tick at which it comes, and the tick at which it is cancelled.
type Arrival = (u64, Script, Option<u64>);

fn script(troubles: bool) -> impl Strategy<Value = Script> {
    let trouble = if troubles {
        prop_oneof![
            6 => Just(Trouble::None),
            1 => Just(Trouble::PrepareFails),
            1 => (0..6u32).prop_map(Trouble::ErrorAt),
            1 => (0..6u32).prop_map(Trouble::PanicAt),
            1 => Just(Trouble::FinishFails),
        ]
        .boxed()
    } else {
        Just(Trouble::None).boxed()
    };
    let side = prop_oneof![Just(8u32), Just(64), Just(128)];
    let tokens = prop_oneof![4 => Just(77usize), 1 => Just(154)];
    let slices = prop_oneof![4 => 1..8u32, 1 => 8..80u32];
    (
        0..3u8,
        side,
        tokens,
        (1..6u32, slices),
        (0..12u32, 1..=2u32),
        trouble,
    )
        .prop_map(
            |(model, side, context_tokens, (images, slices), (evaluations, rows), trouble)| Script {
                model,
                side,
                context_tokens,
                images,
                slices,
                work: ImageWork { evaluations, rows },
                trouble,
            },
        )
}

fn arrivals(troubles: bool, cancels: bool) -> impl Strategy<Value = Vec<Arrival>> {
    let cancel = if cancels {
        prop::option::weighted(0.2, 0..200u64).boxed()
    } else {
        Just(None).boxed()
    };
    prop::collection::vec((0..150u64, script(troubles), cancel), 1..24)
}

fn policy() -> impl Strategy<Value = BatchPolicy> {
    (
        1..20u32,
        1..100_000u64,
        1..10u32,
        1..500u64,
        (1..40u32, 1..4usize, 1..12u32),
    )
        .prop_map(
            |(
                max_rows,
                compute_budget,
                max_ticks_per_turn,
                age_ms,
                (prepare_ahead_rows, max_models, slices),
            )| {
                BatchPolicy {
                    slices_per_turn: slices,
                    max_rows,
                    compute_budget,
                    max_ticks_per_turn,
                    age_bound: Duration::from_millis(age_ms),
                    max_jobs: 32,
                    prepare_ahead_rows,
                    max_models,
                    memory_cap_lifetime: Duration::from_secs(1),
                }
            },
        )
}

/// Lets the jobs come, be cancelled and run to their ends. The world checks every plan.
fn play(world: &mut World, arrivals: &[Arrival]) {
    for tick in 0..=200 {
        for (number, (at, script, _)) in (1..).zip(arrivals) {
            if *at == tick {
                world.admit(number, script.clone());
            }
        }
        for (number, (at, _, cancel)) in (1..).zip(arrivals) {
            if *cancel == Some(tick) && *at <= tick {
                world.cancel(JobId::from_u128(number));
            }
        }
        world.tick();
    }
    world.run();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: keys are not mixed, capacity is kept, every job ends once, only guilty jobs fail, each image
    /// of a finished job was evaluated exactly its number of times and finished once, nothing stays behind.
    #[test]
    fn every_job_gets_exactly_what_it_needs(
        policy in policy(),
        arrivals in arrivals(true, true),
        memory_rows in prop_oneof![Just(u32::MAX), 2..12u32],
        (load_ms, model_room, state_room) in (0..40u64, 1..4usize, 1..6usize),
        broken_model in prop::option::weighted(0.2, 0..3u8),
    ) {
        let mut world = World::new(policy);
        world.memory_rows = memory_rows;
        world.load_time = Duration::from_millis(load_ms);
        world.model_room = model_room;
        world.state_room = state_room;
        world.broken_models = broken_model.map(model_key).into_iter().collect();
        play(&mut world, &arrivals);
        for ledger in world.ledgers.values() {
            let script = &ledger.script;
            let (end, _) = ledger.ended.expect("every job ends");
            let guilty = match script.trouble {
                Trouble::None => false,
                Trouble::PrepareFails | Trouble::FinishFails => true,
                Trouble::ErrorAt(at) | Trouble::PanicAt(at) => at < script.work.evaluations,
            } || broken_model == Some(script.model);
            if end != End::Cancelled {
                prop_assert_eq!(end, if guilty { End::Failed } else { End::Finished });
            }
            if end == End::Finished {
                prop_assert!(ledger.evaluations.iter().all(|done| *done == script.work.evaluations));
                prop_assert!(ledger.finishes.iter().all(|times| *times == 1));
            }
        }
    }

    /// Nobody starves: from one act for a job to the next never passes more than the age bound and, for every job inside,
    /// one turn of each of the three acts, of which a preparation is a few slices.
    /// A preparation may take several turns.
    #[test]
    fn the_wait_of_every_job_is_bounded_in_time(policy in policy(), arrivals in arrivals(false, true)) {
        let policy = BatchPolicy { max_models: 3, ..policy };
        let mut world = World::new(policy);
        play(&mut world, &arrivals);
        let jobs = u32::try_from(arrivals.len()).expect("few jobs");
        let images: u32 = arrivals.iter().map(|(_, script, _)| script.images).sum();
        let turns = |script: &Script| script.slices.div_ceil(policy.slices_per_turn);
        let turns: u32 = arrivals.iter().map(|(_, script, _)| turns(script)).sum();
        let acts = (2 + policy.slices_per_turn) * (jobs + images + turns + 1);
        let bound = policy.age_bound + world.longest_act * acts;
        prop_assert!(world.longest_wait.1 <= bound, "{:?} > {:?}", world.longest_wait.1, bound);
    }

    /// The same without the help of age, in ticks: a job waits for the turns of the other keys, as often as jobs of its
    /// own key are before it, while dear images are paid back.
    #[test]
    fn the_wait_of_every_job_is_bounded_in_ticks(policy in policy(), arrivals in arrivals(false, false)) {
        let policy = BatchPolicy {
            max_models: 3,
            prepare_ahead_rows: u32::MAX,
            compute_budget: policy.compute_budget.max(2 * 64 * 64),
            age_bound: Duration::from_secs(1_000_000),
            ..policy
        };
        let in_one_slice = |(at, script, cancel): &Arrival| (*at, Script { slices: 1, ..script.clone() }, *cancel);
        let arrivals: Vec<Arrival> = arrivals.iter().map(in_one_slice).collect();
        let mut world = World::new(policy);
        play(&mut world, &arrivals);
        let keys = arrivals.iter().map(|(_, script, _)| (script.model, script.side, script.context_tokens));
        let keys: BTreeSet<_> = keys.collect();
        let (jobs, keys) = (arrivals.len() as u64, keys.len() as u64);
        // The dearest image costs 2 x 128 x 128, at most four quanta.
        let bound = 3 * jobs * (1 + 5 * keys * u64::from(policy.max_ticks_per_turn));
        prop_assert!(world.longest_wait.0 <= bound, "{} > {bound}", world.longest_wait.0);
    }

    /// The same calls give the same plans.
    #[test]
    fn plans_are_a_function_of_the_calls(policy in policy(), arrivals in arrivals(true, true)) {
        let (mut first, mut second) = (World::new(policy), World::new(policy));
        play(&mut first, &arrivals);
        play(&mut second, &arrivals);
        prop_assert_eq!(first.plans, second.plans);
    }
}
