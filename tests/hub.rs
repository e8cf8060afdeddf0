//! Models that are not here yet: fetched once when the first request names them, with honest answers meanwhile.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::hub_server::HubServer;
use crate::support::server::TestServer;
use crate::support::tests_folder;

const CATALOGUE: &str = r#"
[[model]]
name   = "tiny"
kind   = "checkpoint"
source = "hf:owner/tiny"
base   = "sd15"
role   = "lcm"

[[model]]
name   = "absent"
kind   = "lora"
source = "hf:owner/absent:lora.safetensors"
"#;

/// A folder with the catalogue and the cache.
fn home() -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs_err::write(home.path().join("models.toml"), CATALOGUE).expect("it can be written");
    home
}

fn serve(hub: &HubServer, home: &TempDir, more: &[(&str, &str)]) -> TestServer {
    let catalogue = home.path().join("models.toml").display().to_string();
    let (cache, endpoint) = (home.path().join("hf").display().to_string(), hub.address());
    let mut environment = vec![("HF_HOME", cache.as_str()), ("HF_ENDPOINT", endpoint.as_str())];
    environment.extend(more);
    TestServer::start_with(&["--models", &catalogue], &environment)
}

async fn model(server: &TestServer, name: &str) -> Value {
    let list = get(&format!("{}/v1/models", server.base())).await.json();
    let models = list["models"].as_array().expect("a list").clone();
    models
        .into_iter()
        .find(|model| model["name"] == name)
        .expect("it is in the catalogue")
}

fn body(model: &str) -> Value {
    let mut body = good_body();
    body["model_name"] = json!(model);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_begins_one_download_and_everybody_is_told_how_far_it_is() {
    let (hub, home) = (HubServer::closed().await, home());
    let server = serve(&hub, &home, &[]);
    assert_eq!(model(&server, "tiny").await["state"], "missing");
    assert_eq!(hub.requests(), 0, "neither the start nor a list fetches anything");

    let waiting = futures::future::join_all((0..20).map(|_| async {
        let reply = generate(&server, &body("tiny")).await;
        assert_eq!(reply.status, 503, "{}", reply.json());
        let after = reply.headers["retry-after"]
            .to_str()
            .expect("a number")
            .to_owned();
        assert!(after.parse::<u64>().expect("seconds") >= 1);
        reply.json()["message"].as_str().expect("a text").to_owned()
    }));
    let messages = waiting.await;
    assert!(
        messages[0].contains("`tiny` cannot be used yet: it is being downloaded: "),
        "{}",
        messages[0]
    );
    let listed = model(&server, "tiny").await;
    assert_eq!(
        (&listed["state"], &listed["available"]),
        (&json!("downloading"), &json!(false))
    );
    assert!(listed["progress"]["done_bytes"].as_u64() < listed["progress"]["total_bytes"].as_u64());

    let mut modelslab = good_modelslab_body();
    modelslab["model_id"] = json!("tiny");
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    let reply = send(http().post(address).json(&modelslab)).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["status"]),
        (200, &json!("error"))
    );
    assert!(
        reply.json()["message"].to_string().contains("being downloaded"),
        "{}",
        reply.json()
    );
    assert!(
        reply.json()["retry_after"]
            .as_u64()
            .is_some_and(|seconds| seconds >= 1)
    );

    hub.open();
    while model(&server, "tiny").await["state"] != "available" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reply = generate(&server, &body("tiny")).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let bodies = hub.bodies();
    let mut each = bodies.clone();
    each.sort();
    each.dedup();
    assert_eq!(
        each.len(),
        bodies.len(),
        "every file was asked for once: {bodies:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_is_said_and_other_models_go_on() {
    let (hub, home) = (HubServer::closed().await, home());
    let server = serve(&hub, &home, &[]);
    let mut with_lora = body("tiny");
    with_lora["loras"] = json!([{"model_name": "absent", "strength": 1.0}]);
    let reply = generate(&server, &with_lora).await;
    assert_eq!(reply.status, 503, "{}", reply.json());
    while model(&server, "absent").await["state"] != "failed" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let why = model(&server, "absent").await["unavailable_because"].to_string();
    assert!(why.contains("does not exist, or it is private"), "{why}");
    hub.open();

    let offline = serve(&hub, &self::home(), &[("HF_HUB_OFFLINE", "1")]);
    let reply = generate(&offline, &body("tiny")).await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.json()["message"].to_string().contains("HF_HUB_OFFLINE"),
        "{}",
        reply.json()
    );
}

fn models(hub: &HubServer, home: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .arg("models")
        .args(args)
        .current_dir(home.path())
        .env("HF_HOME", home.path().join("hf"))
        .env("HF_ENDPOINT", hub.address())
        .output()
        .expect("the binary starts")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_pulls_lists_inspects_and_verifies() {
    let (hub, home) = (HubServer::closed().await, home());
    hub.open();
    let listed = said(&models(&hub, &home, &["list"]));
    assert!(listed.contains("not fetched yet"), "{listed}");
    assert_eq!(hub.requests(), 0);
    let pulled = models(&hub, &home, &["pull", "tiny"]);
    assert!(pulled.status.success(), "{}", said(&pulled));
    assert!(
        said(&pulled).contains("checkpoint `tiny` is ready"),
        "{}",
        said(&pulled)
    );
    let listed = said(&models(&hub, &home, &["list"]));
    assert!(listed.contains("ready"), "{listed}");
    let verified = models(&hub, &home, &["verify", "tiny"]);
    assert!(
        said(&verified).contains("all of it can be read"),
        "{}",
        said(&verified)
    );
    let inspected = said(&models(&hub, &home, &["inspect", "tiny"]));
    assert!(
        inspected.contains("hf:owner/tiny") && inspected.contains("layout of diffusers"),
        "{inspected}"
    );
    let wrong = models(&hub, &home, &["pull", "tinny"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("did you mean tiny?"), "{}", said(&wrong));
    let absent = models(&hub, &home, &["pull", "absent"]);
    assert!(
        said(&absent).contains("does not exist, or it is private"),
        "{}",
        said(&absent)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_catalogue_downloads_nothing_by_itself() {
    let hub = HubServer::closed().await;
    let home = tempfile::tempdir().expect("a folder");
    let catalogue = tests_folder().join("../models.toml").display().to_string();
    let (cache, endpoint) = (home.path().join("hf").display().to_string(), hub.address());
    let environment = [("HF_HOME", cache.as_str()), ("HF_ENDPOINT", endpoint.as_str())];
    let server = TestServer::start_with(&["--models", &catalogue], &environment);
    assert_eq!(model(&server, "sdxl").await["state"], "missing");
    assert_eq!(
        generate(&server, &good_body()).await.status,
        200,
        "the demo model needs nothing"
    );
    assert_eq!(hub.requests(), 0);
    assert!(!home.path().join("hf").exists());
}
