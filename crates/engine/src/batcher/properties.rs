//! What holds for every mix of jobs, policies, faults and cancellations.

use std::collections::BTreeMap;
use std::time::Duration;

use pentimento_types::{JobId, Priority};
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
        (0..3u8, 0..3u8),
        side,
        tokens,
        (1..6u32, slices, 1..20u32),
        (0..12u32, 1..=2u32),
        trouble,
    )
        .prop_map(
            |((owner, model), side, context_tokens, sizes, (evaluations, rows), trouble)| Script {
                owner,
                model,
                side,
                context_tokens,
                images: sizes.0,
                slices: sizes.1,
                finish_slices: sizes.2,
                work: ImageWork { evaluations, rows },
                priority: Priority::Normal,
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
    (1..20u32, 1..100_000u64, 1..500u64, 1..40u32, 1..4usize).prop_map(
        |(max_rows, compute_budget, age_ms, prepare_ahead_rows, max_models)| BatchPolicy {
            max_rows,
            compute_budget,
            age_bound: Duration::from_millis(age_ms),
            max_jobs: 32,
            prepare_ahead_rows,
            max_models,
            cost_lifetime: Duration::from_secs(600),
            memory_cap_lifetime: Duration::from_secs(1),
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

    /// Nobody starves: from one act for a job to the next every other job has no more than about the time of an act twice,
    /// and those that come in the meantime begin behind it. The help of age is left out.
    #[test]
    fn the_wait_of_every_job_is_bounded(policy in policy(), arrivals in arrivals(false, true)) {
        let policy = BatchPolicy {
            max_models: 3,
            prepare_ahead_rows: u32::MAX,
            age_bound: Duration::from_secs(1_000_000),
            ..policy
        };
        let mut world = World::new(policy);
        play(&mut world, &arrivals);
        let jobs = u32::try_from(arrivals.len()).expect("few jobs");
        // A generous count: on each level of turns (owner, kind, job) three acts of every job; and half-prepared jobs hold back
        // others of their owner until they are ready.
        let preparing: u32 = arrivals.iter().map(|(_, script, _)| script.slices.min(8)).sum();
        let bound = world.longest_act * (3 * jobs * 3 + preparing);
        prop_assert!(world.longest_wait.1 <= bound, "{:?} > {:?}", world.longest_wait.1, bound);
    }

    /// Owners who all have enough to do get the same time of the device, and so do the jobs of one model and size of one of
    /// them, whatever they do: at any moment any two are apart by no more than the longest act twice.
    #[test]
    fn owners_and_their_jobs_get_equal_shares(
        scripts in prop::collection::vec((script(false), 1..4u8), 2..8),
    ) {
        let policy = BatchPolicy { max_rows: 8, age_bound: Duration::from_secs(1_000_000), ..BatchPolicy::gpu() };
        let mut world = World::new(policy);
        world.knows_work = false;
        // A whole pass of the VAE may go in the turns of those who wait for its end.
        let longest_pass = scripts.iter().map(|(script, _)| 3 * script.key().latent.pixels());
        let longest_pass = Duration::from_micros(longest_pass.max().unwrap_or(0) * 1000 / (64 * 64));
        let mut owners = BTreeMap::new();
        for (number, (script, owner)) in (1..).zip(&scripts) {
            // Another batch key for each, or who joins another's forward has more than its turn.
            let endless = ImageWork { evaluations: 1_000_000, rows: script.work.rows };
            let own_key = Script {
                owner: *owner,
                context_tokens: number as usize,
                work: endless,
                ..script.clone()
            };
            owners.entry(*owner).or_insert_with(Vec::new).push(world.admit(number, own_key));
        }
        for tick in 0..1000 {
            prop_assert!(world.tick());
            if tick % 8 != 0 {
                continue;
            }
            let time = |job: &JobId| world.ledgers[job].device_time;
            let time_of_owner = |jobs: &Vec<JobId>| jobs.iter().map(time).sum::<Duration>();
            let apart = |times: Vec<Duration>| {
                let (least, most) = (times.iter().min().copied(), times.iter().max().copied());
                most.unwrap_or_default() - least.unwrap_or_default()
            };
            let bound = 2 * world.longest_act + longest_pass + Duration::from_millis(1);
            prop_assert!(apart(owners.values().map(time_of_owner).collect()) <= bound);
            let kind = |job: &JobId| (world.ledgers[job].script.model, world.ledgers[job].script.side);
            for jobs in owners.values() {
                for one in jobs {
                    let alike = jobs.iter().filter(|other| kind(other) == kind(one));
                    prop_assert!(apart(alike.map(time).collect()) <= bound);
                }
            }
        }
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
