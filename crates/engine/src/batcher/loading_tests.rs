//! Rules of the batcher for models that come and go, and for preparations in slices, one scene each.

use std::time::Duration;

use pentimento_types::{Clock, JobId, SystemClock};

use super::world::{End, Ledger, Script, World, model_key};
use crate::{BatchPolicy, Batcher, ImageWork, JobSpec, Outcome, Plan};

/// A job of model 1 comes while model 0 is in use, and new jobs of model 0 keep coming.
fn cold_model_under_a_flood(mut world: World) -> Duration {
    world.admit(1, Script::lcm());
    world.tick();
    let cold = world.admit(
        2,
        Script {
            model: 1,
            ..Script::lcm()
        },
    );
    let mut number = 3;
    while world.ledgers[&cold].ended.is_none() {
        while world.batcher.len() < 6 {
            world.admit(number, Script::lcm());
            number += 1;
        }
        assert!(world.tick());
        assert!(number < 1000, "the cold model starves");
    }
    world.latency(cold)
}

#[test]
fn a_cold_model_gets_its_turn_under_a_flood_of_jobs_of_another() {
    let policy = BatchPolicy {
        max_models: 1,
        age_bound: Duration::from_millis(100),
        ..BatchPolicy::gpu()
    };
    let by_places = cold_model_under_a_flood(World::new(policy));
    let mut small = World::new(BatchPolicy {
        max_models: 4,
        ..policy
    });
    small.model_room = 1;
    let by_memory = cold_model_under_a_flood(small);
    for latency in [by_places, by_memory] {
        assert!(latency < Duration::from_millis(500), "{latency:?}");
    }
}

#[test]
fn a_large_model_gets_its_turn_while_two_small_ones_are_in_use() {
    let mut world = World::new(BatchPolicy {
        age_bound: Duration::from_millis(100),
        ..BatchPolicy::gpu()
    });
    world.model_room = 2;
    world.model_sizes.insert(model_key(2), 2);
    world.load_time = Duration::from_millis(1);
    let mut number = 1;
    let mut large = None;
    while large.is_none_or(|job| world.ledgers[&job].ended.is_none()) {
        // The jobs of model 1 are longer, so that the two are never without a job at the same time.
        for (model, evaluations) in [(0, 4), (1, 7)] {
            let of_model = |ledger: &&Ledger| ledger.ended.is_none() && ledger.script.model == model;
            while world.ledgers.values().filter(of_model).count() < 3 {
                let script = Script {
                    model,
                    work: ImageWork { evaluations, rows: 1 },
                    ..Script::lcm()
                };
                world.admit(number, script);
                number += 1;
            }
        }
        assert!(world.tick());
        if number > 20 && large.is_none() {
            let script = Script {
                model: 2,
                ..Script::lcm()
            };
            large = Some(world.admit(1_000_000, script));
        }
        assert!(
            number < 2000,
            "the large model starves, after {} loads",
            world.loads.len()
        );
    }
    let latency = world.latency(large.expect("it was admitted"));
    assert!(latency < Duration::from_millis(500), "{latency:?}");
}

#[test]
fn a_model_that_is_loading_holds_nobody_up() {
    let mut world = World::new(BatchPolicy::cpu());
    let long = world.admit(
        1,
        Script {
            work: ImageWork {
                evaluations: 200,
                rows: 1,
            },
            ..Script::lcm()
        },
    );
    world.tick();
    world.load_time = Duration::from_millis(100);
    let cold: Vec<JobId> = (2..102)
        .map(|number| {
            let script = Script {
                model: 1,
                ..Script::lcm()
            };
            world.admit(number, script)
        })
        .collect();
    let evaluation = Duration::from_micros(1001);
    while world.elapsed < Duration::from_millis(100) {
        let (before, done) = (world.elapsed, world.ledgers[&long].evaluations[0]);
        assert!(world.tick());
        assert_eq!(
            world.ledgers[&long].evaluations[0],
            done + 1,
            "each tick is one of its evaluations"
        );
        assert!(
            world.elapsed - before <= evaluation,
            "and none takes longer than it is"
        );
        assert_eq!(world.batcher.jobs_loading(), 100);
    }
    world.run();
    assert_eq!(world.loads.len(), 2, "a hundred jobs caused one load");
    let finished = |job: &JobId| matches!(world.ledgers[job].ended, Some((End::Finished, _)));
    assert!(cold.iter().all(finished));
}

#[test]
fn a_load_without_room_is_tried_again_when_a_model_is_let_go() {
    let mut world = World::new(BatchPolicy::gpu());
    world.model_room = 1;
    world.load_time = Duration::from_millis(1);
    let first = world.admit(1, Script::lcm());
    world.tick();
    let second = world.admit(
        2,
        Script {
            model: 1,
            ..Script::lcm()
        },
    );
    world.run();
    assert_eq!(
        world.loads.len(),
        3,
        "refused once, and not asked for at every tick: {:?}",
        world.loads
    );
    assert!(world.latency(first) < world.latency(second));
}

#[test]
fn a_long_preparation_lets_the_others_go_on_between_its_slices() {
    let mut world = World::new(BatchPolicy::gpu());
    // 64 slices of an eighth of a millisecond.
    let endless = Script {
        side: 128,
        slices: 64,
        ..Script::lcm()
    };
    let long = world.admit(1, endless);
    let running = world.admit(
        2,
        Script {
            work: ImageWork {
                evaluations: 20,
                rows: 1,
            },
            ..Script::lcm()
        },
    );
    while world.ledgers[&long].slices < 64 {
        assert!(world.tick());
    }
    let done = world.ledgers[&running].evaluations[0];
    assert!(
        (5..=7).contains(&done),
        "as much time as the slices, of which its own preparation took two milliseconds: {done}"
    );
    let mut in_a_row = 0;
    for plan in &world.plans {
        let slice = matches!(plan, Plan::Prepare(job) if *job == long);
        in_a_row = if slice { in_a_row + 1 } else { 0 };
        assert!(in_a_row <= 17, "as many as one act of the other's is long");
    }
    assert!(world.batcher.cancel(long), "it can be cancelled at any of them");
}

#[test]
fn a_job_without_memory_for_its_states_waits_for_another_to_end() {
    let mut world = World::new(BatchPolicy::gpu());
    world.state_room = 2;
    let jobs: Vec<JobId> = (1..=6).map(|number| world.admit(number, Script::lcm())).collect();
    world.run();
    let finished = |job: &JobId| matches!(world.ledgers[job].ended, Some((End::Finished, _)));
    assert!(jobs.iter().all(finished));
    let refused = world
        .plans
        .iter()
        .filter(|plan| matches!(plan, Plan::Prepare(_)))
        .count()
        - jobs.len();
    assert!(
        refused <= jobs.len(),
        "each end is a reason for one more try: {refused} refusals"
    );
}

#[test]
fn a_younger_model_does_not_take_the_memory_that_an_overdue_job_waits_for() {
    let policy = BatchPolicy {
        age_bound: Duration::from_secs(1),
        ..BatchPolicy::gpu()
    };
    let mut now = SystemClock.now();
    let mut batcher = Batcher::new(policy);
    let latent = Script::lcm().key().latent;
    let admit = |batcher: &mut Batcher, number: u8, now| {
        let id = JobId::from_u128(u128::from(number) + 1);
        let spec = JobSpec::new(id, model_key(number), latent);
        batcher.admit(spec, now).expect("there is room");
        batcher.plan(now)
    };
    assert_eq!(admit(&mut batcher, 0, now), Plan::Load(model_key(0)));
    batcher.report(Outcome::Loaded(model_key(0)), now);
    assert_eq!(batcher.plan(now), Plan::Prepare(JobId::from_u128(1)));
    let continues = Outcome::PrepareContinues {
        job: JobId::from_u128(1),
        in_pass: false,
    };
    batcher.report(continues, now);
    assert_eq!(admit(&mut batcher, 1, now), Plan::Load(model_key(1)));
    batcher.report(Outcome::LoadRefused(model_key(1)), now);
    now += Duration::from_secs(2);
    let next = admit(&mut batcher, 2, now);
    assert_ne!(next, Plan::Load(model_key(2)), "model 1 waits for that memory");
    batcher.cancel(JobId::from_u128(1));
    assert_eq!(batcher.plan(now), Plan::Unload(model_key(0)));
    assert_eq!(batcher.plan(now), Plan::Load(model_key(1)));
}
