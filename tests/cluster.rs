//! Several machines: real processes that share jobs over a real broker and pictures over a store that speaks S3.
//!
//! What the queue and the records do when brokers and nodes fail is tested in `crates/cluster`; here is what callers see.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::client::{get, http, send};
use crate::support::ground::{Ground, begun, call, job, long, nodes, picture, until, until_workers};
use crate::support::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn any_machine_answers_for_what_another_has_accepted_and_a_third_has_made() {
    let Some(ground) = Ground::new().await else { return };
    let front = ground.front(&[]);
    let refused = call(&front, json!({})).await.json();
    assert!(
        refused["message"]
            .to_string()
            .contains("no worker of the cluster"),
        "nobody would make it: {refused}"
    );
    let worker = ground.worker();
    let other = ground.front(&[]);
    for server in [&front, &other] {
        until_workers(server, 1).await;
    }
    let address = picture(&front, json!({})).await;
    let made = get(&address).await;
    assert!(made.status == 200 && made.body.starts_with(b"\x89PNG"));
    let elsewhere = address.replace(&front.base(), &other.base());
    assert_eq!(
        get(&elsewhere).await.body,
        made.body,
        "links are the same everywhere"
    );
    let jobs = get(&format!("{}/v1/jobs", other.base())).await.json();
    assert_eq!(jobs["jobs"][0]["state"], "succeeded", "{jobs}");
    let listed = nodes(&other).await;
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert_eq!(
        (&listed[0]["is_here"], &listed[0]["works"]),
        (&true.into(), &false.into())
    );
    let made_by = listed
        .iter()
        .find(|node| node["name"] == worker.name().as_str())
        .unwrap();
    assert_eq!(
        (&made_by["answers"], &made_by["works"]),
        (&false.into(), &true.into())
    );
    let details = http().post(format!("{}/api/v1/enterprise/system_details", front.base()));
    let details = send(details.json(&json!({"key": "any"}))).await.json();
    assert_eq!(details["nodes"].as_array().map(Vec::len), Some(3), "{details}");
    let alone = TestServer::start();
    let by_itself = get(&format!("{}/v1/cluster", alone.base())).await.json();
    assert_eq!(by_itself, json!({"state": "none", "nodes": []}));
    // The same request alone is the same picture.
    let solo = get(&picture(&alone, json!({})).await).await;
    assert_eq!(solo.body, made.body);
    let health = send(http().get(format!("{}/readyz", worker.health()))).await;
    assert_eq!(health.status, StatusCode::OK);
    let nothing_else = send(http().get(format!("{}/v3/model", worker.health()))).await;
    assert_eq!(nothing_else.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_watched_and_cancelled_from_a_machine_that_neither_took_nor_runs_it() {
    let Some(ground) = Ground::new().await else { return };
    let hold = [("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")];
    let (front, other, worker) = (ground.front(&hold), ground.front(&hold), ground.worker());
    until_workers(&front, 1).await;
    let id = begun(&front, long()).await;
    until("the other machine sees how far it is", async || {
        let job = job(&other, &id).await;
        (job["progress"]["done"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let cancelled = send(http().delete(format!("{}/v1/jobs/{id}", other.base()))).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.json());
    until("its home knows", async || {
        (job(&front, &id).await["state"] == "cancelled").then_some(())
    })
    .await;
    until("its worker is free", async || {
        let free = |node: &Value| node["name"] == worker.name().as_str() && node["jobs"]["running"] == 0;
        nodes(&front).await.iter().any(free).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_stays_on_the_machine_that_took_it_where_it_says_so() {
    let Some(ground) = Ground::new().await else { return };
    let (server, worker) = (ground.server(&[]), ground.worker());
    until_workers(&server, 2).await;
    let images = async |name: Option<&str>| {
        let nodes = nodes(&server).await;
        let node = nodes
            .iter()
            .find(|node| name.map_or(node["is_here"] == true, |name| node["name"] == name));
        node.map_or(0, |node| node["images"].as_u64().unwrap_or(0))
    };
    for seed in 0..4 {
        picture(&server, json!({"loadbalancer": "no", "seed": seed})).await;
    }
    until("the machine says what it has made", async || {
        (images(None).await == 4).then_some(())
    })
    .await;
    assert_eq!(images(Some(&worker.name())).await, 0);
    // Of many at once the other machine makes some, since this one has its hands full.
    let busy = json!({"loadbalancer": "yes", "samples": 4, "num_inference_steps": 20});
    let calls = (0..12).map(|_| call(&server, busy.clone()));
    for reply in futures::future::join_all(calls).await {
        let reply = reply.json();
        assert!(
            reply["status"] != "error" && reply["warning"].is_null(),
            "{reply}"
        );
    }
    until("the worker has made some", async || {
        (images(Some(&worker.name())).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_gives_its_jobs_to_another() {
    let Some(ground) = Ground::new().await else { return };
    let front = ground.front(&[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")]);
    let first = ground.worker();
    until_workers(&front, 1).await;
    let id = begun(&front, long()).await;
    until("it runs", async || {
        (job(&front, &id).await["state"] == "running").then_some(())
    })
    .await;
    let second = ground.worker();
    until_workers(&front, 2).await;
    // Told twice, it does not wait for the end of the job.
    first.signal("TERM");
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.signal("TERM");
    until("the first has gone", async || {
        let gone = !nodes(&front)
            .await
            .iter()
            .any(|node| node["name"] == first.name().as_str());
        gone.then_some(())
    })
    .await;
    until("the second runs it", async || {
        let mine = |node: &Value| node["name"] == second.name().as_str() && node["jobs"]["running"] == 1;
        nodes(&front).await.iter().any(mine).then_some(())
    })
    .await;
    let seen = job(&front, &id).await;
    assert_eq!(
        (&seen["state"], seen["error"].is_null()),
        (&"running".into(), true),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_jobs_that_it_could_only_keep_waiting_to_one_that_comes_later() {
    let Some(ground) = Ground::new().await else { return };
    let front = ground.front(&[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")]);
    let first = ground.worker();
    until_workers(&front, 1).await;
    for _ in 0..20 {
        begun(&front, long()).await;
    }
    let runs = async |name: String| {
        let mine = |node: &Value| node["name"] == name.as_str() && node["jobs"]["running"].as_u64() > Some(0);
        nodes(&front).await.iter().any(mine).then_some(())
    };
    until("the first runs some", async || runs(first.name()).await).await;
    let second = ground.worker();
    until("the second runs some", async || runs(second.name()).await).await;
    let jobs = get(&format!("{}/v1/jobs?state=succeeded", front.base()))
        .await
        .json();
    assert_eq!(jobs["jobs"], json!([]), "it need not wait for an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_broker_a_machine_works_alone_and_afterwards_in_company_again() {
    let Some(mut ground) = Ground::new().await else {
        return;
    };
    let server = ground.server(&[]);
    until_workers(&server, 1).await;
    let before = get(&picture(&server, json!({})).await).await.body;
    ground.broker.kill();
    let alone = get(&picture(&server, json!({"seed": 8})).await).await;
    assert!(alone.status == 200 && alone.body != before);
    let state = get(&format!("{}/v1/cluster", server.base())).await.json()["state"].clone();
    assert_eq!(state, "alone");
    // It comes back with nothing on its disk.
    ground.broker.lose_its_disk();
    ground.broker.start_again();
    let worker = ground.worker();
    until_workers(&server, 2).await;
    let listed = nodes(&server).await;
    assert!(
        listed.iter().any(|node| node["name"] == worker.name().as_str()),
        "{listed:?}"
    );
    assert_eq!(get(&picture(&server, json!({})).await).await.body, before);
}

#[test]
fn a_cluster_that_anybody_could_join_or_that_shares_no_pictures_does_not_start() {
    let far = ("PENTIMENTO_CLUSTER", "nats://192.0.2.1:4222");
    let bucket = ("PENTIMENTO_IMAGES", "s3://pictures");
    /// Variables, what is said, and the exit code.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, i32);
    let cases: [Case<'_>; 5] = [
        (&[far], "needs a place for pictures", 2),
        (
            &[far, bucket, ("PENTIMENTO_CLUSTER_TOKEN", "")],
            "PENTIMENTO_CLUSTER_TOKEN",
            2,
        ),
        (&[far, bucket], "no token, user, nkey or credentials file", 1),
        (
            &[("PENTIMENTO_CLUSTER_TOKEN", "x")],
            "means nothing without a cluster",
            2,
        ),
        (
            &[("PENTIMENTO_RUNS_JOBS", "false")],
            "means nothing without a cluster",
            2,
        ),
    ];
    for (environment, expected, code) in cases {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "none",
                "--data",
                "data",
            ])
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{environment:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{environment:?}: {said}");
    }
    let empty: PathBuf = tempfile::tempdir().unwrap().keep().join("token");
    fs_err::write(&empty, "\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .args([
            "worker",
            "--cluster",
            "nats://127.0.0.1:9",
            "--admin-listen",
            "none",
            "--data",
        ])
        .arg(empty.with_file_name("data"))
        .env("PENTIMENTO_IMAGES", "s3://pictures")
        .env("PENTIMENTO_CLUSTER_TOKEN_FILE", &empty)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("token is empty") && !output.status.success(),
        "{said}"
    );
}
