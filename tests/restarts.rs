//! Servers that are killed, stopped and started again on the same data: what they had accepted goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::{JobLimits, SqliteJobs};
use pentimento_types::SystemClock;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::any_size;
use crate::support::client::{
    Reply, addresses, generate, get, good_body, good_modelslab_body, http, pictures_of, send,
};
use crate::support::pictures;
use crate::support::server::TestServer;

/// ModelsLab's calls are answered at once, and the pictures fetched.
const AT_ONCE: (&str, &str) = ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0");

fn start(home: &Path) -> TestServer {
    TestServer::start_in(home, &[], &[AT_ONCE])
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a folder for the server")
}

fn modelslab_body(seed: u32, steps: u32, side: u32) -> Value {
    let mut body = good_modelslab_body();
    body["seed"] = json!(seed);
    body["num_inference_steps"] = json!(steps);
    (body["width"], body["height"]) = (json!(side), json!(side));
    body
}

/// Asks for a picture, and returns its job's number.
async fn ask(server: &TestServer, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    let reply = send(http().post(address).json(body)).await.json();
    assert_eq!(reply["status"], "processing", "{reply}");
    reply["id"].clone()
}

async fn fetch(server: &TestServer, number: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/fetch/{number}", server.base());
    send(http().post(address).json(&json!({"key": "any"})))
        .await
        .json()
}

/// The picture of a job, once it is there.
async fn picture(server: &TestServer, number: &Value) -> bytes::Bytes {
    loop {
        let reply = fetch(server, number).await;
        match reply["status"].as_str() {
            Some("processing") => tokio::time::sleep(Duration::from_millis(50)).await,
            Some("success") => {
                let link = reply["output"][0].as_str().expect("a link");
                let picture = get(link).await;
                assert_eq!(picture.status, 200, "{link}");
                return picture.body;
            }
            _ => panic!("{number} ended so: {reply}"),
        }
    }
}

async fn readiness(server: &TestServer) -> Reply {
    get(&format!("{}/readyz", server.base())).await
}

/// Returns when so many jobs run.
async fn runs(server: &TestServer, jobs: u64) {
    while readiness(server).await.json()["jobs"]["running"].as_u64() < Some(jobs) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn jobs_of_a_killed_server_are_made_by_the_next_one_with_the_bytes_that_they_would_have_had() {
    let home = home();
    let server = start(home.path());
    let mut numbers = Vec::new();
    // One long one, and twenty that wait or run with it.
    numbers.push(ask(&server, &modelslab_body(1, 25, 256)).await);
    for seed in 2..=21 {
        numbers.push(ask(&server, &modelslab_body(seed, 3, 64)).await);
    }
    runs(&server, 1).await;
    server.kill();
    let server = start(home.path());
    let after_kill = picture(&server, &numbers[1]).await;
    for number in &numbers {
        picture(&server, number).await;
    }
    // Its number leads to it still, and another server makes the same of the request.
    let other = self::home();
    let alone = start(other.path());
    let number = ask(&alone, &modelslab_body(2, 3, 64)).await;
    assert_eq!(picture(&alone, &number).await, after_kill);
}

#[tokio::test]
async fn a_job_beyond_its_deadline_fails_in_its_dialect_and_is_not_begun_by_the_next_server() {
    const ALONE: (&str, &str) = ("PENTIMENTO_RUNNING_JOBS", "1");
    let with_deadline = |home: &Path, seconds, more: &[(&str, &str)]| {
        let deadline = ("PENTIMENTO_JOB_DEADLINE_SECONDS", seconds);
        TestServer::start_in(
            home,
            &["--models", &any_size()],
            &[&[deadline, ALONE], more].concat(),
        )
    };
    // Far more than a second on any machine.
    let long = modelslab_body(1, 150, 1024);
    let [home, other] = [home(), home()];
    let server = with_deadline(home.path(), "1", &[]);
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    let reply = send(http().post(address).json(&long)).await;
    assert_eq!(reply.json()["status"], "failed", "{reply:?}");
    let said = reply.json()["message"].to_string();
    assert!(said.contains("1 s after it was accepted"), "{said}");
    let mut novita = good_body();
    novita["input_image"] = pictures::base64_of_size(2048, 2048).into();
    novita["steps"] = json!(8);
    novita["image_num"] = json!(4);
    let reply = generate(&server, &novita).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{reply:?}");
    assert!(
        reply.json()["message"].to_string().contains("1 s after"),
        "{reply:?}"
    );
    let metrics = get(&format!("{}/metrics", server.base())).await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for dialect in ["novita", "modelslab"] {
        let line = format!(
            "pentimento_jobs_ended_total{{outcome=\"failed\",kind=\"deadline_exceeded\",dialect=\"{dialect}\"}} 1"
        );
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    drop(server);

    let server = with_deadline(other.path(), "2", &[AT_ONCE]);
    let numbers = [
        ask(&server, &long).await,
        ask(&server, &modelslab_body(2, 3, 64)).await,
    ];
    server.kill();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    // What a job was accepted with holds, whatever the setting is now.
    let server = with_deadline(other.path(), "600", &[AT_ONCE]);
    for number in &numbers {
        let reply = loop {
            let reply = fetch(&server, number).await;
            if reply["status"] != "processing" {
                break reply;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(reply["status"], "failed", "{reply}");
        assert!(reply["message"].to_string().contains("2 s after"), "{reply}");
    }
    let jobs = get(&format!("{}/v1/jobs?state=failed", server.base()))
        .await
        .json();
    let attempts: Vec<_> = jobs["jobs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|job| &job["attempt"])
        .collect();
    assert!(attempts.contains(&&json!(0)), "{jobs}");
    let alive = ask(&server, &modelslab_body(3, 3, 64)).await;
    assert!(!picture(&server, &alive).await.is_empty());
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_refuses_what_is_new_and_leaves_what_waits_for_the_next_start() {
    let home = home();
    let mut server = start(home.path());
    let running = ask(&server, &modelslab_body(1, 30, 256)).await;
    runs(&server, 1).await;
    let stopped = server.base();
    server.signal("HUP");
    // As long as the job runs.
    let mut told = false;
    while let Ok(response) = http().get(format!("{stopped}/readyz")).send().await {
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let refused = http()
                .post(format!("{stopped}/v3/lcm-img2img"))
                .json(&good_body())
                .send()
                .await;
            if let Ok(refused) = refused {
                assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
                assert!(refused.headers().contains_key("retry-after"));
                told = true;
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(told, "the job was over too soon");
    // Told twice: it ends between two steps.
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    drop(server);
    let server = start(home.path());
    assert!(!picture(&server, &running).await.is_empty());
}

#[tokio::test]
async fn a_server_whose_data_folder_was_replaced_takes_nothing_until_it_is_back() {
    let home = home();
    let server = start(home.path());
    let (data, away) = (home.path().join("data"), home.path().join("away"));
    fs_err::rename(&data, &away).expect("it can be moved");
    fs_err::create_dir(&data).expect("another one");
    while readiness(&server).await.status == StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reason = readiness(&server).await.json();
    assert!(
        reason["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("data folder")),
        "{reason}"
    );
    let refused = generate(&server, &good_body()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    fs_err::remove_dir_all(&data).expect("it can be deleted");
    fs_err::rename(&away, &data).expect("it can be moved back");
    while readiness(&server).await.status != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pictures_of(&server, &good_body()).await.len(), 1);
}

#[tokio::test]
async fn jobs_of_a_newer_version_are_refused_by_name_and_left_as_they_are() {
    let home = home();
    let server = start(home.path());
    pictures_of(&server, &good_body()).await;
    server.signal("TERM");
    let mut server = server;
    assert_eq!(server.wait(), Some(0));
    drop(server);
    let database = home.path().join("data/jobs.sqlite");
    // Whoever opens and closes it takes the journal into the file.
    let limits = JobLimits {
        unfinished: 1,
        finished: 1000,
        finished_bytes: u64::MAX,
    };
    drop(SqliteJobs::open(&database, Arc::new(SystemClock), limits).expect("readable"));
    let mut bytes = fs_err::read(&database).expect("the jobs");
    // The user version in the head of the file.
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs_err::write(&database, &bytes).expect("writable");
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
        .current_dir(home.path())
        .output()
        .expect("the binary starts");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("newer version") && said.contains("schema 99"),
        "{said}"
    );
    assert_eq!(fs_err::read(&database).expect("the jobs"), bytes);
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_refuses_whole_requests_and_recovers_by_itself() {
    let home = home();
    let server = start(home.path());
    let images = home.path().join("data/images");
    let aside = home.path().join("data/images.aside");
    fs_err::rename(&images, &aside).expect("it can be moved");
    // Fails for every user, also for root.
    fs_err::write(&images, "in the way").expect("writable");
    let refused = generate(&server, &good_body()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    let jobs = readiness(&server).await.json()["jobs"].clone();
    assert_eq!(
        (&jobs["queued"], &jobs["running"]),
        (&json!(0), &json!(0)),
        "nothing is half accepted"
    );
    fs_err::remove_file(&images).expect("it can be deleted");
    fs_err::rename(&aside, &images).expect("it can be moved back");
    assert_eq!(pictures_of(&server, &good_body()).await.len(), 1);
}

#[tokio::test]
async fn a_stopped_and_continued_server_ends_its_job_once() {
    let home = home();
    let server = start(home.path());
    let number = ask(&server, &modelslab_body(5, 60, 128)).await;
    runs(&server, 1).await;
    server.signal("STOP");
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal("CONT");
    assert!(!picture(&server, &number).await.is_empty());
    let pictures = fs_err::read_dir(home.path().join("data/images/generations")).expect("a folder");
    assert_eq!(pictures.count(), 1);
}

#[tokio::test]
async fn few_open_files_cost_connections_and_no_jobs() {
    let home = home();
    let server = start(home.path());
    let limited = std::process::Command::new("prlimit")
        .args(["--nofile=64:64", "--pid", &server.process_id().to_string()])
        .status();
    if !limited.is_ok_and(|status| status.success()) {
        eprintln!("left out: there is no prlimit here");
        return;
    }
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(tokio::net::TcpStream::connect(server.address()).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(connections);
    let mut server = server;
    assert!(server.is_alive());
    let reply = generate(&server, &good_body()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(addresses(&reply.json()).len(), 1);
}
