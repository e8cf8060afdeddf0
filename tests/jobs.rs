//! Our own calls about jobs over real connections: cancelling at every stage, watching, and the command line.

use std::process::{Command, Output};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, pictures_of, send};
use crate::support::pictures;
use crate::support::server::TestServer;

/// A picture and steps that keep a debug build busy for a while.
fn long_body() -> Value {
    let mut body = good_modelslab_body();
    body["width"] = 256.into();
    body["height"] = 256.into();
    body["num_inference_steps"] = 41.into();
    body["strength"] = json!(1.0);
    body["guidance_scale"] = json!(7.5);
    body
}

/// Its job's id, once it is running; the call's reply is not waited for.
async fn begin(server: &TestServer, body: Value) -> String {
    let path = format!("{}/api/v1/enterprise/img2img", server.base());
    tokio::spawn(async move { send(http().post(path).json(&body)).await });
    for _ in 0..600 {
        let running = get(&format!("{}/v1/jobs?state=running", server.base()))
            .await
            .json();
        if let Some(id) = running["jobs"][0]["id"].as_str() {
            return id.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no job runs");
}

async fn delete(server: &TestServer, id: &str) -> (u16, Value) {
    let reply = send(http().delete(format!("{}/v1/jobs/{id}", server.base()))).await;
    (reply.status.as_u16(), reply.json())
}

fn jobs(server: &TestServer, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .arg("jobs")
        .args(args)
        .args(["--server", &server.base()])
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_the_device_and_its_neighbours_get_the_same_bytes() {
    let server = TestServer::start();
    let alone = pictures_of(&server, &good_body()).await;
    let id = begin(&server, long_body()).await;
    let beside = tokio::spawn({
        let (path, body) = (format!("{}/v3/lcm-img2img", server.base()), good_body());
        async move { send(http().post(path).json(&body)).await }
    });
    let (status, job) = delete(&server, &id).await;
    assert_eq!((status, &job["state"]), (200, &json!("cancelled")));
    // The device is free at once: the next picture does not wait for what the long one had before it.
    let mut waited = 0;
    loop {
        let ready = get(&format!("{}/readyz", server.base())).await.json();
        if ready["engine"]["jobs"] == 0 {
            break;
        }
        waited += 1;
        assert!(waited < 600, "the job is still in the engine: {ready}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let beside = beside.await.unwrap().json();
    let picture = get(beside["images"][0]["image_url"].as_str().unwrap()).await;
    assert_eq!([picture.body], alone.as_slice());
    let shown = get(&format!("{}/v1/jobs/{id}", server.base())).await.json();
    assert_eq!(
        (&shown["state"], &shown["images"]),
        (&json!("cancelled"), &json!([]))
    );
    assert_eq!(delete(&server, &id).await.0, 200, "twice is fine");
    let done = beside["job_id"].as_str().unwrap();
    assert_eq!(delete(&server, done).await.0, 409);
    assert_eq!(
        delete(&server, "job_00000000000000000000000000000007").await.0,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_job_show_its_pictures_and_change_none_of_them() {
    let server = TestServer::start();
    let mut body = good_modelslab_body();
    body["num_inference_steps"] = 21.into();
    body["strength"] = json!(1.0);
    body["init_image"] = pictures::base64("images/photo.png").into();
    body["width"] = 128.into();
    body["height"] = 128.into();
    let id = begin(&server, body.clone()).await;
    let mut stream = http()
        .get(format!("{}/v1/jobs/{id}/events", server.base()))
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while let Some(piece) = stream.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(
        text.contains("event: progress") && text.contains("event: preview"),
        "{text}"
    );
    assert!(
        text.contains("\"width\":16"),
        "a pixel for each latent pixel: {text}"
    );
    let end = text.rsplit_once("data: ").unwrap().1;
    let job: Value = serde_json::from_str(end.trim()).unwrap();
    assert_eq!(job["state"], "succeeded", "{text}");
    let watched = get(job["images"][0]["url"].as_str().unwrap()).await;
    let path = format!("{}/api/v1/enterprise/img2img", server.base());
    let unwatched = send(http().post(path).json(&body)).await;
    let id_header = HeaderName::from_static("x-job-id");
    assert_ne!(
        unwatched.headers.get(id_header),
        Some(&HeaderValue::from_str(&id).unwrap())
    );
    let unwatched = get(unwatched.json()["output"][0].as_str().unwrap()).await;
    assert_eq!(watched.body, unwatched.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_watches_and_cancels_jobs() {
    let server = TestServer::start();
    let made = generate(&server, &good_body()).await.json();
    let done = made["job_id"].as_str().unwrap();
    let shown = said(&jobs(&server, &["show", done]));
    assert!(
        shown.contains("state        succeeded") && shown.contains("/files/"),
        "{shown}"
    );
    let json: Value = serde_json::from_slice(&jobs(&server, &["show", done, "--json"]).stdout).unwrap();
    assert_eq!(json["id"], done);
    let watched = jobs(&server, &["watch", done]);
    assert!(
        watched.status.success() && said(&watched).starts_with("succeeded\nhttp"),
        "{}",
        said(&watched)
    );

    let id = begin(&server, long_body()).await;
    let table = said(&jobs(&server, &["list"]));
    let rows: Vec<&str> = table.lines().collect();
    assert!(
        rows[0].starts_with("ID ") && rows[1].starts_with(&id) && rows[2].starts_with(done),
        "{table}"
    );
    let watcher = std::thread::spawn({
        let (base, id) = (server.base(), id.clone());
        move || {
            let binary = env!("CARGO_BIN_EXE_pentimento");
            let mut watch = Command::new(binary);
            watch
                .args(["jobs", "watch", &id, "--json", "--server", &base])
                .output()
                .unwrap()
        }
    });
    let cancelled = jobs(&server, &["cancel", &id]);
    assert_eq!(said(&cancelled), format!("{id} cancelled\n"));
    let watched = watcher.join().unwrap();
    assert_eq!(watched.status.code(), Some(1));
    assert!(
        said(&watched).contains("the job was cancelled"),
        "{}",
        said(&watched)
    );
    let refused = jobs(&server, &["cancel", done]);
    assert!(
        !refused.status.success() && said(&refused).contains("already ended"),
        "{}",
        said(&refused)
    );
    assert_eq!(
        said(&jobs(&server, &["cancel", "--delete", done])),
        format!("{done} deleted\n")
    );
    let unknown = jobs(&server, &["show", done]);
    assert!(
        !unknown.status.success() && said(&unknown).contains("there is no job"),
        "{}",
        said(&unknown)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_refuses_the_key_is_said_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ask = |server: &str, key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pentimento"));
        command
            .args(["jobs", "list", "--server", server])
            .current_dir(folder.path());
        if let Some(key) = key {
            command.env("PENTIMENTO_KEY", key);
        }
        command.output().unwrap()
    };
    let nobody = said(&ask(&format!("http://{free}"), None));
    assert!(
        nobody.contains("no server answers at") && nobody.contains("--server"),
        "{nobody}"
    );
    let server = TestServer::start_with(&[], &[("PENTIMENTO_KEYS", "me=sk-1")]);
    for key in [None, Some("sk-2")] {
        let refused = said(&ask(&server.base(), key));
        assert!(
            refused.contains("refused the key") && refused.contains("PENTIMENTO_KEY"),
            "{refused}"
        );
    }
    let empty = ask(&server.base(), Some("sk-1"));
    assert!(
        empty.status.success() && said(&empty).starts_with("ID"),
        "{}",
        said(&empty)
    );
}

/// Many who watch one job, half of whom never read.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_who_watch_a_job_cost_little_and_hold_nobody_up() {
    const WATCHERS: usize = 300;
    const MOST_BYTES_EACH: u64 = 96 << 10;
    let environment = [
        // Three quarters of the connections may watch, half of them from one address.
        ("PENTIMENTO_MAX_CONNECTIONS", "800"),
        ("PENTIMENTO_MAX_CONNECTIONS_PER_ADDRESS", "700"),
        ("PENTIMENTO_STALL_SECONDS", "3600"),
    ];
    let server = TestServer::start_with(&[], &environment);
    let alone = pictures_of(&server, &good_body()).await;
    let mut body = long_body();
    (body["width"], body["height"]) = (384.into(), 384.into());
    body["num_inference_steps"] = 150.into();
    let id = begin(&server, body).await;
    // What the job and its neighbours work in is there from then on.
    let done =
        async || get(&format!("{}/v1/jobs/{id}", server.base())).await.json()["progress"]["done"].as_u64();
    while done().await < Some(2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pictures_of(&server, &good_body()).await, alone);
    let before = server.resident_memory();
    let mut streams = Vec::new();
    for _ in 0..WATCHERS {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let call =
            format!("GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(call.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let idle = streams.split_off(WATCHERS / 2);
    let readers = streams.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let mut told = Vec::new();
            stream.read_to_end(&mut told).await.unwrap();
            String::from_utf8_lossy(&told).into_owned()
        })
    });
    let readers: Vec<_> = readers.collect();
    // Others are served, with the same bytes, while previews go out.
    for _ in 0..3 {
        assert_eq!(pictures_of(&server, &good_body()).await, alone);
    }
    let grown = server.resident_memory().saturating_sub(before);
    assert!(
        grown < WATCHERS as u64 * MOST_BYTES_EACH,
        "{} bytes for each of {WATCHERS}",
        grown / WATCHERS as u64
    );
    assert_eq!(delete(&server, &id).await.0, 200);
    for reader in readers {
        let told = reader.await.unwrap();
        assert!(told.starts_with("HTTP/1.1 200 OK"), "{told:.200}");
        for wanted in [
            "event: progress",
            "event: preview",
            "event: end",
            "\"state\":\"cancelled\"",
        ] {
            assert!(told.contains(wanted), "{wanted}: {told:.400}");
        }
    }
    drop(idle);
    assert_eq!(pictures_of(&server, &good_body()).await, alone);
}
