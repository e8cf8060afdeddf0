//! Keys of the data folder: made, used and revoked while the server runs, with limits, in both dialects. Faults 79 and 80.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Reply, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

fn keys(data: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .arg("keys")
        .args(args)
        .arg("--data")
        .arg(data)
        .current_dir(data.parent().unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Makes a key and gives its secret.
pub(crate) fn new_key(data: &Path, args: &[&str]) -> String {
    let made = keys(data, &[&["new"], args].concat());
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let secret = said.trim_end();
    assert!(secret.starts_with("pnt_") && secret.len() == 68, "{said:?}");
    secret.to_owned()
}

async fn novita(server: &TestServer, key: Option<&str>) -> Reply {
    let request = http().post(format!("{}/v3/lcm-img2img", server.base()));
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    send(request.json(&good_body())).await
}

async fn modelslab(server: &TestServer, key: &str) -> Value {
    let mut body = good_modelslab_body();
    body["key"] = json!(key);
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    send(http().post(address).json(&body)).await.json()
}

/// The server follows the file within a moment; a minute is for a busy machine.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the keys have not changed within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_counts_while_the_server_runs_until_it_is_revoked() {
    let server = TestServer::start();
    let data = server.data();
    assert_eq!(novita(&server, None).await.status, 200, "without keys it is open");
    let alice = new_key(&data, &["alice"]);
    until(async || novita(&server, None).await.status == 400).await;
    let bob = new_key(&data, &["bob", "--expires", "90days", "--admin"]);
    until(async || novita(&server, Some(&bob)).await.status == 200).await;
    assert_eq!(novita(&server, Some(&alice)).await.status, 200);
    assert_eq!(modelslab(&server, &alice).await["status"], "success");
    // Wherever the clients of the dialects put it.
    for request in [
        http()
            .get(format!("{}/v3/model", server.base()))
            .header("authorization", &alice),
        http()
            .post(format!("{}/api/v1/enterprise/system_details", server.base()))
            .header("key", &alice),
        http().post(format!(
            "{}/api/v1/enterprise/system_details?key={alice}",
            server.base()
        )),
        http()
            .get(format!("{}/v1/models", server.base()))
            .bearer_auth(&alice),
    ] {
        let reply = send(request).await;
        assert!(
            reply.status == 200 && reply.json()["status"] != "error",
            "{}",
            reply.json()
        );
    }

    // Two of one label could not be told apart.
    assert!(!keys(&data, &["new", "alice"]).status.success());
    let listed = keys(&data, &["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&listed[0]["label"], &listed[0]["state"]),
        (&json!("alice"), &json!("valid"))
    );
    assert_eq!(listed[1]["admin"], json!(true));

    // A call of a key that is revoked meanwhile gets its picture.
    let mut long = good_body();
    long["steps"] = json!(8);
    long["image_num"] = json!(8);
    let address = format!("{}/v3/lcm-img2img", server.base());
    let running = tokio::spawn(send(http().post(&address).bearer_auth(&alice).json(&long)));
    until(async || {
        let ready = send(http().get(format!("{}/readyz", server.base()))).await.json();
        ready["jobs"]["running"] == 1 || running.is_finished()
    })
    .await;
    assert!(keys(&data, &["revoke", "alice"]).status.success());
    until(async || novita(&server, Some(&alice)).await.status == 403).await;
    assert_eq!(modelslab(&server, &alice).await["message"], "Invalid API key");
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(novita(&server, Some(&bob)).await.status, 200);
    assert!(!keys(&data, &["revoke", "alice"]).status.success());

    let table = String::from_utf8(keys(&data, &["list"]).stdout).unwrap();
    assert!(table.contains("revoked") && table.contains("bob"), "{table}");
    for place in [server.log(), table, listed.to_string()] {
        assert!(
            !place.contains(&alice[4..]) && !place.contains(&bob[4..]),
            "{place}"
        );
    }
    // The last one gone lets nobody in, and a lost file neither.
    assert!(keys(&data, &["revoke", "bob"]).status.success());
    until(async || novita(&server, Some(&bob)).await.status == 403).await;
    fs_err::remove_file(data.join("keys.json")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(novita(&server, None).await.status, 400);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_had_keys_does_not_start_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    new_key(&data, &["alice"]);
    let serve = || {
        Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "none",
                "--data",
            ])
            .arg(&data)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let whole = fs_err::read(data.join("keys.json")).unwrap();
    fs_err::write(data.join("keys.json"), &whole[..whole.len() / 2]).unwrap();
    let damaged = serve();
    let said = String::from_utf8_lossy(&damaged.stderr).into_owned();
    assert!(
        damaged.status.code() == Some(1) && said.contains("keys.json"),
        "{said}"
    );
    fs_err::remove_file(data.join("keys.json")).unwrap();
    let lost = serve();
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert!(
        lost.status.code() == Some(1) && said.contains("keys.required"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_all_callers_is_the_operators() {
    let server = TestServer::start();
    let data = server.data();
    let (plain, admin) = (new_key(&data, &["plain"]), new_key(&data, &["admin", "--admin"]));
    until(async || novita(&server, Some(&admin)).await.status == 200).await;
    let call = async |method: reqwest::Method, path: &str, key: &str| {
        let request = http().request(method, format!("{}{path}", server.base()));
        send(request.bearer_auth(key)).await
    };
    for (method, path) in [
        (reqwest::Method::GET, "/metrics"),
        (reqwest::Method::POST, "/v1/models/demo/load"),
        (reqwest::Method::POST, "/v1/models/demo/unload"),
    ] {
        let refused = call(method.clone(), path, &plain).await;
        assert_eq!(refused.status, 403, "{path}");
        assert!(
            refused.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("--admin")
        );
        assert_eq!(call(method, path, &admin).await.status, 200, "{path}");
    }
    for path in ["load_model", "delete_model", "clear_cache"] {
        let ask = async |key: &str| {
            let address = format!("{}/api/v1/enterprise/{path}", server.base());
            let body = json!({"key": key, "model_id": "demo"});
            send(http().post(address).json(&body)).await.json()
        };
        let refused = ask(&plain).await;
        assert_eq!(refused["status"], "error", "{path}: {refused}");
        assert!(refused["tips"].as_str().unwrap().contains("--admin"), "{refused}");
        assert_eq!(ask(&admin).await["status"], "success", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_calls_too_often_is_told_so_in_its_dialect() {
    let server = TestServer::start();
    let data = server.data();
    let few = new_key(&data, &["few", "--requests-per-minute", "1"]);
    let other = new_key(&data, &["other", "--jobs-at-once", "5"]);
    until(async || novita(&server, None).await.status == 400).await;
    until(async || novita(&server, Some(&other)).await.status == 200).await;
    // A call that is refused for what it says is one, too, and takes no time in which the bucket would fill.
    let empty = http().post(format!("{}/v3/lcm-img2img", server.base()));
    let empty = send(empty.bearer_auth(&few).body("{}")).await;
    assert_eq!(empty.status, 400, "{}", empty.json());
    let refused = novita(&server, Some(&few)).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["reason"]),
        (429, &json!("RATE_LIMIT_EXCEEDED"))
    );
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(
        refused.json()["message"]
            .as_str()
            .unwrap()
            .contains("1 calls a minute")
    );
    let refused = modelslab(&server, &few).await;
    assert_eq!(
        (&refused["status"], &refused["message"]),
        (&json!("error"), &json!("Rate limit exceeded"))
    );
    assert!(
        refused["retry_after"]
            .as_u64()
            .is_some_and(|wait| (1..=60).contains(&wait)),
        "{refused}"
    );
    assert!(
        refused["tips"].as_str().unwrap().contains("1 calls a minute"),
        "{refused}"
    );
    // Asking how far things are has a bucket of its own, and others have theirs.
    for _ in 0..200 {
        let address = format!("{}/api/v1/enterprise/fetch/123", server.base());
        let polled = send(http().post(address).json(&json!({"key": few}))).await;
        assert_eq!(polled.json()["message"], "Request not found");
    }
    assert_eq!(novita(&server, Some(&other)).await.status, 200);
    let metrics = send(http().get(format!("{}/metrics", server.admin_base()))).await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = "pentimento_http_rate_limited_total{bucket=\"calls\",by=\"key\"} 2";
    assert!(text.contains(line), "{text}");
    assert!(
        !text.contains("few") && !text.contains("other\""),
        "a label of a key"
    );
}
