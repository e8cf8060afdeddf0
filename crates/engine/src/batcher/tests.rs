//! Single rules of the batcher, one scene each.

use std::time::Duration;

use pentimento_types::{Clock, JobId, SystemClock};

use super::world::{End, Script, Trouble, World};
use crate::{AdmitError, BatchPolicy, Batcher, ImageWork, JobSpec, Plan};

fn long_job() -> Script {
    // Fault 72: 1024x1024, 41 steps, four guided images.
    Script {
        side: 128,
        images: 4,
        work: ImageWork {
            evaluations: 41,
            rows: 2,
        },
        ..Script::lcm()
    }
}

fn forwards(world: &World) -> Vec<usize> {
    let sizes = world.plans.iter().filter_map(|plan| match plan {
        Plan::Denoise { key: _, images } => Some(images.len()),
        Plan::Idle | Plan::Load(_) | Plan::Unload(_) | Plan::Prepare(_) | Plan::Finish(_) => None,
    });
    sizes.collect()
}

#[test]
fn one_job_runs_prepare_evaluations_finish() {
    let mut world = World::new(BatchPolicy::default());
    let id = world.admit(1, Script::lcm());
    world.run();
    assert_eq!(world.ticks, 6);
    assert!(matches!(world.plans.first(), Some(Plan::Prepare(job)) if *job == id));
    assert!(matches!(world.plans.last(), Some(Plan::Finish(image)) if image.job == id));
    assert_eq!(forwards(&world), [1, 1, 1, 1]);
}

#[test]
fn pictures_of_one_key_share_forwards_and_join_and_leave_between_evaluations() {
    let mut world = World::new(BatchPolicy::default());
    for number in 1..=3 {
        // Each comes when the one before has had one evaluation more than its own preparation took.
        world.admit(number, Script::lcm());
        world.tick();
        world.tick();
    }
    world.run();
    let forwards = forwards(&world);
    assert_eq!(forwards, [1, 2, 3, 3, 2, 1]);
}

#[test]
fn pictures_that_come_together_are_prepared_before_they_are_evaluated_together() {
    let mut world = World::new(BatchPolicy::default());
    for number in 1..=3 {
        world.admit(number, Script::lcm());
    }
    world.run();
    assert_eq!(forwards(&world), [3, 3, 3, 3]);
}

#[test]
fn without_a_single_evaluation_a_job_goes_straight_to_its_finish() {
    let mut world = World::new(BatchPolicy::default());
    world.admit(
        1,
        Script {
            work: ImageWork {
                evaluations: 0,
                rows: 1,
            },
            images: 3,
            ..Script::lcm()
        },
    );
    world.run();
    assert_eq!(world.ticks, 4);
}

#[test]
fn a_picture_too_big_for_the_budget_runs_alone() {
    let policy = BatchPolicy {
        compute_budget: 1,
        max_rows: 1,
        ..BatchPolicy::default()
    };
    let mut world = World::new(policy);
    world.admit(
        1,
        Script {
            images: 2,
            work: ImageWork {
                evaluations: 2,
                rows: 2,
            },
            ..Script::lcm()
        },
    );
    world.run();
    assert_eq!(forwards(&world), [1, 1, 1, 1]);
}

#[test]
fn a_job_of_sixteen_pictures_leaves_room_for_a_job_of_one() {
    let policy = BatchPolicy {
        max_rows: 4,
        ..BatchPolicy::default()
    };
    let mut world = World::new(policy);
    world.admit(
        1,
        Script {
            images: 16,
            ..Script::lcm()
        },
    );
    let one = world.admit(2, Script::lcm());
    while world.ledgers[&one].ended.is_none() {
        assert!(world.tick());
    }
    let forwards = forwards(&world);
    assert!(
        forwards.len() <= 6,
        "four with the single image, one or two before it came: {forwards:?}"
    );
    world.run();
}

#[test]
fn short_jobs_never_wait_for_a_long_one() {
    for (policy, long) in [
        (BatchPolicy::gpu(), long_job()),
        (BatchPolicy::cpu(), long_job()),
        // The same batch key: the short job shares its forwards with the long one.
        (
            BatchPolicy::cpu(),
            Script {
                side: 64,
                ..long_job()
            },
        ),
        // Another model.
        (
            BatchPolicy::gpu(),
            Script {
                model: 1,
                ..long_job()
            },
        ),
    ] {
        let mut solo = World::new(policy);
        let id = solo.admit(1, Script::lcm());
        solo.run();
        let alone = solo.latency(id);

        let mut world = World::new(policy);
        let mut latencies = Vec::new();
        for number in 2..102 {
            // There is always a long job, in all moments of its life, its VAE work too.
            if world.ledgers.values().all(|ledger| ledger.ended.is_some()) {
                world.admit(1000 + number, long.clone());
            }
            world.tick();
            world.tick();
            // It comes at any moment of an act, and must wait for that act's end.
            let begun = world.elapsed;
            world.tick();
            let moment = u32::try_from(number * 37 % 100).expect("below 100");
            let came = begun + (world.elapsed - begun) * moment / 100;
            let id = world.admit(number, Script::lcm());
            while world.ledgers[&id].ended.is_none() {
                assert!(world.tick());
            }
            latencies.push((world.elapsed - came).as_secs_f64() / alone.as_secs_f64());
        }
        latencies.sort_by(f64::total_cmp);
        let (p95, worst) = (latencies[95], latencies[99]);
        println!(
            "{} side {} budget {}: p50 {:.2} p95 {p95:.2} worst {worst:.2} times alone",
            long.model, long.side, policy.compute_budget, latencies[50]
        );
        // Twice its time alone, and the rest of the act that it has come into.
        assert!(p95 <= 2.5, "p95 is {p95:.2} times alone");
        world.run();
    }
}

#[test]
fn one_picture_of_an_owner_is_done_soon_whatever_number_another_has() {
    let small = Script {
        side: 8,
        ..Script::lcm()
    };
    // The same batch key, so that it can share forwards; another size; as many as there are rows in a forward.
    for flood in [
        small.clone(),
        long_job(),
        Script {
            images: 16,
            ..small.clone()
        },
    ] {
        let policy = BatchPolicy::cpu();
        let mut solo = World::new(policy);
        let id = solo.admit(1, small.clone());
        solo.run();
        let alone = solo.latency(id);
        for late in 0..12 {
            let mut world = World::new(policy);
            for number in 1..=100 {
                world.admit(number, flood.clone());
            }
            for _ in 0..late * 23 {
                world.tick();
            }
            let other = Script {
                owner: 1,
                ..small.clone()
            };
            let one = world.admit(1000, other);
            while world.ledgers[&one].ended.is_none() {
                assert!(world.tick());
            }
            // It is admitted between two acts here; in one it would wait for its end.
            let latency = world.latency(one);
            assert!(
                latency <= 2 * alone + world.longest_act,
                "{latency:?} instead of {alone:?}, with acts of {:?}",
                world.longest_act
            );
        }
    }
}

#[test]
fn a_long_job_gets_on_under_a_flood_of_short_ones() {
    let mut world = World::new(BatchPolicy::gpu());
    let long = world.admit(1, long_job());
    let mut number = 2;
    while world.ledgers[&long].ended.is_none() {
        while world.batcher.len() < 20 {
            world.admit(number, Script::lcm());
            number += 1;
        }
        assert!(world.tick());
    }
    // Its acts weigh eight times as much as those of the small jobs, which so may have eight ninths of the device.
    let flooded = world.latency(long).as_secs_f64();
    let mut solo = World::new(BatchPolicy::gpu());
    let id = solo.admit(1, long_job());
    solo.run();
    let factor = flooded / solo.latency(id).as_secs_f64();
    println!("long job under a flood: {factor:.2} times alone");
    assert!(factor <= 10.0, "{factor:.2} times alone");
}

#[test]
fn a_flood_of_new_keys_cannot_starve_an_old_one() {
    let policy = BatchPolicy {
        age_bound: Duration::from_millis(200),
        ..BatchPolicy::gpu()
    };
    let mut world = World::new(policy);
    let old = world.admit(1, long_job());
    for number in 2..4000 {
        // As fast as the door lets them in.
        if world.batcher.len() == policy.max_jobs {
            world.tick();
            continue;
        }
        let side = 8 + u32::try_from(number % 97).expect("small");
        world.admit(
            number,
            Script {
                side,
                work: ImageWork {
                    evaluations: 1,
                    rows: 1,
                },
                ..Script::lcm()
            },
        );
        world.tick();
    }
    assert!(world.ledgers[&old].evaluations.iter().sum::<u32>() > 0);
    assert!(
        world.longest_wait.1 < Duration::from_millis(4000),
        "{:?}",
        world.longest_wait
    );
    world.run();
}

#[test]
fn models_take_turns_in_long_stretches_when_there_is_room_for_one() {
    // Fault 34: requests alternate A, B, A, B with room for one model.
    let policy = BatchPolicy {
        max_models: 1,
        age_bound: Duration::from_millis(100),
        ..BatchPolicy::gpu()
    };
    let mut world = World::new(policy);
    for number in 0..100 {
        world.admit(
            number + 1,
            Script {
                model: u8::from(number % 2 == 1),
                ..Script::lcm()
            },
        );
        for _ in 0..2 {
            world.tick();
        }
    }
    world.run();
    println!(
        "100 alternating jobs: {} model switches, longest wait {:?}",
        world.model_switches, world.longest_wait
    );
    assert!(
        world.model_switches <= 25,
        "{} switches for 100 jobs",
        world.model_switches
    );
    assert!(
        world
            .ledgers
            .values()
            .all(|ledger| matches!(ledger.ended, Some((End::Finished, _))))
    );
}

#[test]
fn a_job_that_waits_for_its_preparation_never_waits_for_the_end_of_long_ones() {
    let policy = BatchPolicy {
        prepare_ahead_rows: 1,
        age_bound: Duration::from_millis(50),
        ..BatchPolicy::gpu()
    };
    let mut world = World::new(policy);
    let endless = ImageWork {
        evaluations: 1000,
        rows: 2,
    };
    for number in 1..=8 {
        world.admit(
            number,
            Script {
                work: endless,
                ..Script::lcm()
            },
        );
    }
    for _ in 0..20 {
        world.tick();
    }
    let short = world.admit(9, Script::lcm());
    while world.ledgers[&short].ended.is_none() {
        assert!(world.tick());
    }
    assert!(
        world.latency(short) < Duration::from_millis(400),
        "{:?}",
        world.latency(short)
    );
}

#[test]
fn only_the_guilty_job_fails_after_an_error() {
    let mut world = World::new(BatchPolicy::default());
    let jobs: Vec<JobId> = (1..=6)
        .map(|number| {
            let trouble = if number == 4 {
                Trouble::ErrorAt(2)
            } else {
                Trouble::None
            };
            world.admit(
                number,
                Script {
                    trouble,
                    images: 1 + u32::try_from(number % 2).expect("small"),
                    ..Script::lcm()
                },
            )
        })
        .collect();
    world.run();
    for (at, job) in jobs.iter().enumerate() {
        let ledger = &world.ledgers[job];
        let expected = if at == 3 { End::Failed } else { End::Finished };
        assert_eq!(ledger.ended.map(|(end, _)| end), Some(expected));
        assert_eq!(ledger.restarts, 0, "an error tears nothing");
    }
}

#[test]
fn after_a_panic_the_innocent_start_anew_once_and_the_guilty_fails() {
    let mut world = World::new(BatchPolicy::default());
    let jobs: Vec<JobId> = (1..=5)
        .map(|number| {
            let trouble = if number == 2 {
                Trouble::PanicAt(1)
            } else {
                Trouble::None
            };
            world.admit(
                number,
                Script {
                    trouble,
                    ..Script::lcm()
                },
            )
        })
        .collect();
    world.run();
    for (at, job) in jobs.iter().enumerate() {
        let expected = if at == 1 { End::Failed } else { End::Finished };
        assert_eq!(world.ledgers[job].ended.map(|(end, _)| end), Some(expected));
    }
}

#[test]
fn out_of_memory_halves_the_forwards_of_that_key_for_a_while() {
    let policy = BatchPolicy {
        memory_cap_lifetime: Duration::from_millis(500),
        ..BatchPolicy::gpu()
    };
    let mut world = World::new(policy);
    world.memory_rows = 3;
    let id = world.admit(
        1,
        Script {
            images: 8,
            work: ImageWork {
                evaluations: 400,
                rows: 1,
            },
            ..Script::lcm()
        },
    );
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(
        forwards(&world),
        [8, 4, 2, 2],
        "two forwards fail, the smaller size is kept"
    );
    while world.elapsed < Duration::from_millis(700) {
        assert!(world.tick());
    }
    assert!(
        forwards(&world)[4..].contains(&8),
        "a larger forward is tried again later"
    );
    world.run();
    assert_eq!(world.ledgers[&id].ended.map(|(end, _)| end), Some(End::Finished));
}

#[test]
fn a_forward_has_as_many_images_as_the_device_says_that_fit_and_at_least_one() {
    for (room, expected) in [(3, 3), (1, 1), (0, 1), (100, 8)] {
        let mut world = World::new(BatchPolicy::gpu());
        world.known_room = room;
        world.memory_rows = u32::try_from(room.max(1)).expect("it is small");
        let id = world.admit(
            1,
            Script {
                images: 8,
                work: ImageWork {
                    evaluations: 4,
                    rows: 1,
                },
                ..Script::lcm()
            },
        );
        world.run();
        let forwards = forwards(&world);
        assert!(forwards.iter().all(|images| *images <= expected), "{forwards:?}");
        assert!(forwards.contains(&expected), "{forwards:?}");
        assert_eq!(world.ledgers[&id].ended.map(|(end, _)| end), Some(End::Finished));
    }
}

#[test]
fn the_door_is_closed_at_the_limit_and_to_the_same_id() {
    let now = SystemClock.now();
    let mut batcher = Batcher::new(BatchPolicy {
        max_jobs: 2,
        ..BatchPolicy::default()
    });
    let key = Script::lcm().key();
    let spec = |id| JobSpec::new(JobId::from_u128(id), key.model.clone(), key.latent);
    assert_eq!(batcher.admit(spec(1), now), Ok(()));
    assert_eq!(batcher.admit(spec(1), now), Err(AdmitError::Duplicate));
    assert_eq!(batcher.admit(spec(2), now), Ok(()));
    assert_eq!(batcher.admit(spec(3), now), Err(AdmitError::Full));
    assert!(batcher.cancel(JobId::from_u128(1)));
    assert_eq!(batcher.admit(spec(3), now), Ok(()));
}

#[test]
fn a_late_job_is_forgotten() {
    let now = SystemClock.now();
    let mut batcher = Batcher::new(BatchPolicy::default());
    let key = Script::lcm().key();
    let deadline = Some(now + Duration::from_secs(5));
    let id = JobId::from_u128(1);
    batcher
        .admit(
            JobSpec {
                deadline,
                ..JobSpec::new(id, key.model, key.latent)
            },
            now,
        )
        .expect("there is room");
    assert_eq!(batcher.expire(now), []);
    assert_eq!(batcher.expire(now + Duration::from_secs(5)), [id]);
    assert!(batcher.is_empty());
    assert_eq!(batcher.plan(now), Plan::Idle);
}
