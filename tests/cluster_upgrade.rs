//! All machines of a cluster are exchanged one by one while callers go on, workers by adding and removing them, for the next
//! version where there is a program of it. Nothing is lost, and nothing counts as a failed attempt.

use std::path::PathBuf;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::support::client::get;
use crate::support::fleet::Fleet;
use crate::support::ground::{Ground, begun, job, until, until_workers};
use crate::support::machine::{Machine, Role};

/// The program of the next version, which `cargo xtask test` builds; says what follows where there is none.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own switch, not a setting of the program"
)]
fn next_version(otherwise: &str) -> Option<PathBuf> {
    let program = std::env::var_os("TEST_NEXT_VERSION").map(PathBuf::from);
    if program.is_none() {
        println!("there is no program of the next version (cargo xtask test builds one): {otherwise}");
    }
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_exchanged_one_by_one_under_load_and_nobody_notices() {
    let next = next_version("the upgrade is to the same version");
    let mut dice = StdRng::seed_from_u64(7);
    let roles = [Role::Worker, Role::Front, Role::Server];
    let Some(mut fleet) = Fleet::start(&roles, &mut dice).await else {
        return;
    };
    // Workers first; one more is there before the other goes.
    for (at, role) in roles.into_iter().enumerate() {
        if role == Role::Worker {
            fleet.add_worker(next.as_ref()).await;
        }
        fleet.stop(at);
        if role != Role::Worker {
            fleet.start_machine(at, next.as_ref());
        }
        fleet.until_heard().await;
        println!("{role:?} is exchanged after {:.1?}", fleet.elapsed());
    }
    let account = fleet.finish().await;
    assert_eq!(
        account.crashes(),
        0,
        "a machine that stops in order crashes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_worker_leaves_a_newer_job_to_a_newer_one_and_goes_on() {
    let Some(next) = next_version("NOT run") else {
        return;
    };
    let Some(ground) = Ground::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut environment = ground.environment();
    for (name, value) in [
        ("PENTIMENTO_CLUSTER_LEASE_SECONDS", "2"),
        ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0"),
    ] {
        environment.push((name.to_owned(), value.to_owned()));
    }
    let start = |role, name: &str, program: Option<&PathBuf>| {
        let mut machine = Machine::new(role, folder.path().join(name));
        if let Some(program) = program {
            machine.program.clone_from(program);
        }
        machine.start(&environment);
        machine
    };
    let older = start(Role::Worker, "older", None);
    let front = start(Role::Front, "front", None);
    let newer_front = start(Role::Front, "newer-front", Some(&next));
    let (front, newer_front) = (front.server().unwrap(), newer_front.server().unwrap());
    for server in [front, newer_front] {
        until_workers(server, 1).await;
    }
    let newer = begun(newer_front, json!({"seed": 1})).await;
    until("the older worker has seen it", async || {
        let log = fs_err::read_to_string(older.home.join("worker.log")).ok()?;
        log.contains("left for an upgraded node").then_some(())
    })
    .await;
    // It goes on with what it knows.
    let plain = begun(front, json!({"seed": 2})).await;
    until("the older worker makes it", async || {
        (job(front, &plain).await["state"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(job(newer_front, &newer).await["state"], "queued");
    // Nor does an older machine know what it is, which ends with its own upgrade.
    let unread = get(&format!("{}/v1/jobs/{newer}", front.base())).await;
    assert_eq!(
        (unread.status.as_u16(), &unread.json()["error"]["kind"]),
        (503, &json!("unavailable"))
    );
    let _newer = start(Role::Worker, "newer", Some(&next));
    until("the newer worker makes it", async || {
        (job(newer_front, &newer).await["state"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(job(newer_front, &newer).await["attempt"], 1);
}
