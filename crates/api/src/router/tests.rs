//! The whole application over the real service and a fake device: what the real binary would answer, without weights.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use base64::Engine as _;
use pentimento_engine::testing::{FakeExecutor, Fault, FaultAt, FaultKind};
use pentimento_service::KeyRing;
use pentimento_service::testing::{TestConfig, TestService};
use pentimento_types::{ErrorKind, JobState, MemoryBudget, MemoryLedger};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::ApiConfig;

mod bodies;
mod drop_in;

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

const GIBIBYTE: u64 = 1 << 30;

/// The defaults of a server that is also called by the name that the tests use.
fn config() -> ApiConfig {
    ApiConfig {
        allowed_hosts: vec!["pictures.test".to_owned()],
        ..ApiConfig::new()
    }
}

/// A ledger with room for so many bytes of bodies.
fn room(bodies: u64) -> Arc<MemoryLedger> {
    MemoryLedger::new(MemoryBudget {
        bodies,
        ..MemoryBudget::UNBOUNDED
    })
}

fn router(test: &TestService, keys: &[(&str, &str)]) -> Router {
    router_with(test, keys, config())
}

fn router_with(test: &TestService, keys: &[(&str, &str)], config: ApiConfig) -> Router {
    let keys = keys
        .iter()
        .map(|(label, secret)| ((*label).to_owned(), (*secret).to_owned()));
    build_router(AppState::new(
        test.service.clone(),
        KeyRing::new(keys),
        config,
        room(GIBIBYTE),
    ))
}

async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: to_bytes(body, usize::MAX).await.unwrap(),
    }
}

async fn get(router: &Router, path: &str) -> Reply {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

fn image_file() -> String {
    let mut file = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(24, 16, image::Rgb([90, 150, 230]));
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(file.into_inner())
}

fn post(body: &Value) -> Request<Body> {
    Request::post("/v3/lcm-img2img")
        .header("host", "pictures.test")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn good(prompt: &str) -> Value {
    json!({"model_name": "demo", "input_image": image_file(), "prompt": prompt, "steps": 2, "seed": 5})
}

#[tokio::test]
async fn a_request_becomes_images_behind_links() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = good("a house");
    body["image_num"] = json!(2);
    body["width"] = json!(512);
    let reply = send(&router, post(&body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.headers["x-pentimento-ignored-fields"], "width");
    let found = reply.json();
    assert_eq!(found["images"], found["image"]);
    assert_eq!(
        (&found["images"][0]["seed"], &found["images"][1]["seed"]),
        (&json!(5), &json!(6))
    );
    assert!(["3599", "3600"].contains(&found["images"][0]["image_url_ttl"].as_str().unwrap()));
    for (at, item) in found["images"].as_array().unwrap().iter().enumerate() {
        let address = item["image_url"].as_str().unwrap();
        let path = address.strip_prefix("http://pictures.test").unwrap();
        assert!(
            path.starts_with("/files/") && path.ends_with(&format!("_{at}.png")),
            "{path}"
        );
        let file = get(&router, path).await;
        assert_eq!(
            (file.status, &file.headers["content-type"]),
            (200, &"image/png".parse().unwrap())
        );
        assert_eq!(
            image::load_from_memory(&file.body)
                .unwrap()
                .to_rgb8()
                .dimensions(),
            (24, 16)
        );
        // Whatever a client adds to defeat a cache is no part of the link.
        assert_eq!(get(&router, &format!("{path}?v=2")).await.status, 200);
        let last = path.rsplit_once('/').unwrap().1;
        assert_eq!(get(&router, &format!("/files/{last}")).await.status, 403);
    }
}

#[tokio::test]
async fn what_goes_wrong_inside_is_told_in_the_vendors_words() {
    let fault = |word, kind| Fault::always(word, FaultAt::Evaluation(0), kind);
    let device = FakeExecutor::new()
        .with_fault(fault("memory", FaultKind::OutOfMemory))
        .with_fault(fault("panic", FaultKind::Panic))
        .with_fault(fault("internal", FaultKind::Error(ErrorKind::Internal)));
    let test = TestService::start(device);
    let router = router(&test, &[]);
    for word in ["memory", "panic", "internal"] {
        let reply = send(&router, post(&good(word))).await;
        let found = reply.json();
        assert_eq!(
            (reply.status, &found["reason"]),
            (500, &json!("TASK_FAILED")),
            "{word}: {found}"
        );
        assert!(
            found["metadata"]["request_id"]
                .as_str()
                .unwrap()
                .starts_with("req_")
        );
        assert_eq!(get(&router, "/healthz").await.status, 200);
        assert_eq!(
            send(&router, post(&good("a house"))).await.status,
            200,
            "after {word}"
        );
    }
}

#[tokio::test]
async fn a_full_server_says_so_at_once() {
    // Holds the device until the end of the test.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let device = FakeExecutor::new().with_hook(move |_| {
        let _ = held.recv();
    });
    let config = TestConfig {
        unfinished_jobs: 2,
        ..TestConfig::default()
    };
    let test = TestService::start_with(device, config);
    let router = router(&test, &[]);
    let waiting: Vec<_> = (0..2)
        .map(|k| {
            let router = router.clone();
            tokio::spawn(async move { send(&router, post(&good(&format!("house {k}")))).await.status })
        })
        .collect();
    let full = async {
        loop {
            let status = test.service.status().await;
            if status.jobs.queued + status.jobs.running == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), full).await.unwrap();
    let refused = send(&router, post(&good("one more"))).await;
    assert_eq!(
        (refused.status, refused.json()["reason"].clone()),
        (429, json!("RATE_LIMIT_EXCEEDED"))
    );
    assert_eq!(refused.headers["retry-after"], "2");
    drop(release);
    for call in waiting {
        assert_eq!(call.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_the_job() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, start) = std::sync::mpsc::channel::<()>();
    let device = FakeExecutor::new().with_hook(move |_| {
        let _ = started.send(());
        let _ = held.recv();
    });
    let test = TestService::start(device);
    let router = router(&test, &[]);
    let call = tokio::spawn(async move { send(&router, post(&good("a house"))).await.status });
    tokio::task::spawn_blocking(move || start.recv())
        .await
        .unwrap()
        .unwrap();
    call.abort();
    let _ = call.await;
    drop(release);
    let gone = async {
        loop {
            let jobs = test.service.status().await.jobs;
            if jobs.queued + jobs.running == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert!(JobState::Cancelled.is_final());
}

#[tokio::test]
async fn keys_are_checked_before_the_body_is_looked_at() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("tests", "sk_1")]);
    let call = |header: Option<&str>| {
        let mut request = Request::post("//v3/lcm-img2img/")
            .body(Body::from("not json"))
            .unwrap();
        if let Some(header) = header {
            request
                .headers_mut()
                .insert("authorization", header.parse().unwrap());
        }
        send(&router, request)
    };
    assert_eq!(call(None).await.json()["reason"], "MISSING_API_KEY");
    assert_eq!(
        call(Some("Bearer sk_2")).await.json()["reason"],
        "INVALID_API_KEY"
    );
    for right in ["sk_1", "bearer sk_1"] {
        assert_eq!(call(Some(right)).await.json()["reason"], "INVALID_REQUEST_BODY");
    }
    assert_eq!(get(&router, "/v3/model").await.status, 400);
    assert_eq!(get(&router, "/healthz").await.status, 200);
}

#[tokio::test]
async fn errors_have_the_shape_of_their_path() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for (path, status, reason) in [
        ("/v3/nothing", 404, "API_NOT_FOUND"),
        ("/v3/lcm-img2img", 405, "API_NOT_ALLOWED"),
    ] {
        let reply = get(&router, path).await;
        assert_eq!(
            (reply.status, reply.json()["reason"].clone()),
            (status, json!(reason))
        );
        assert_eq!(
            reply.headers["x-request-id"].to_str().unwrap(),
            reply.json()["metadata"]["request_id"]
        );
    }
    let own = get(&router, "/files/generations/x.png").await;
    assert_eq!(
        (own.status, own.json()["error"]["kind"].clone()),
        (403, json!("forbidden"))
    );
    let preflight = Request::options("/v3/lcm-img2img")
        .header("origin", "http://localhost:3000")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-novita-source")
        .body(Body::empty())
        .unwrap();
    let preflight = send(&router, preflight).await;
    assert_eq!(preflight.status, 200);
    assert_eq!(
        preflight.headers["access-control-allow-headers"],
        "authorization,x-novita-source"
    );
}

fn modelslab(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("host", "pictures.test")
        .body(body.into())
        .unwrap()
}

fn modelslab_body() -> Value {
    json!({"key": "k", "model_id": "demo", "prompt": "a house", "init_image": image_file(), "width": "64",
        "height": 64, "samples": "2", "num_inference_steps": "3", "seed": 5, "track_id": 7})
}

#[tokio::test]
async fn modelslabs_call_answers_under_every_path_and_its_job_can_be_fetched() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for path in [
        "/api/v1/enterprise/img2img",
        "/api/v1/enterprise/images/img2img/",
        "//api//v1/enterprise/txt2img/img2img",
        "/api/v1/enterprise/realtime/img2img",
        "/api/v1/enterprise/community/img2img",
        "/api/v1/enterprise/image_editing/img2img",
        "/api/v6/images/img2img",
        "/api/v6/img2img",
        "/api/v3/img2img",
        "/api/v4/dreambooth/img2img",
        "/api/v5/img2img",
        "/v1/enterprise/img2img",
    ] {
        let reply = send(&router, modelslab(path, modelslab_body().to_string())).await;
        let found = reply.json();
        assert_eq!(
            (reply.status, &found["status"]),
            (200, &json!("success")),
            "{path}: {found}"
        );
        assert_eq!(found["output"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&found["meta"]["W"], &found["meta"]["seed"]),
            (&json!(64), &json!(5))
        );
        let prefix = found["meta"]["file_prefix"].as_str().unwrap();
        let address = found["output"][1].as_str().unwrap();
        let end = format!("/generations/{prefix}-1.png");
        assert!(
            address.starts_with("http://pictures.test/files/") && address.ends_with(&end),
            "{address}"
        );
        let file = get(&router, address.strip_prefix("http://pictures.test").unwrap()).await;
        let image = image::load_from_memory(&file.body).unwrap();
        assert_eq!((file.status, image.width(), image.height()), (200, 64, 64));

        let number = found["id"].as_u64().unwrap();
        let folder = path.trim_end_matches('/').strip_suffix("/img2img").unwrap();
        for request in [
            modelslab(&format!("{folder}/fetch/{number}"), r#"{"key":"k"}"#),
            modelslab(
                &format!("{folder}/fetch"),
                json!({"request_id": number}).to_string(),
            ),
            modelslab(
                &format!("{folder}/fetch"),
                json!({"request_id": number.to_string()}).to_string(),
            ),
            Request::get(format!("{folder}/fetch/{number}"))
                .header("host", "pictures.test")
                .body(Body::empty())
                .unwrap(),
        ] {
            assert_eq!(send(&router, request).await.json(), found);
        }
    }
}

#[tokio::test]
async fn modelslabs_base64_is_the_address_of_a_text_or_the_text() {
    let test = TestService::start(FakeExecutor::new());
    let mut body = modelslab_body();
    body["base64"] = json!("yes");
    let plain = router(&test, &[]);
    let found = send(&plain, modelslab("/api/v1/enterprise/img2img", body.to_string()))
        .await
        .json();
    let address = found["output"][0].as_str().unwrap();
    let path = address.strip_prefix("http://pictures.test").unwrap();
    assert!(path.ends_with("-0.png.base64"), "{path}");
    let text = get(&plain, path).await;
    assert!(
        text.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let decode = |text: &[u8]| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    assert_eq!(image::load_from_memory(&decode(&text.body)).unwrap().width(), 64);

    let mut config = config();
    config.modelslab.inline_base64 = true;
    let inline = router_with(&test, &[], config);
    let found = send(&inline, modelslab("/api/v1/enterprise/img2img", body.to_string()))
        .await
        .json();
    let text = found["output"][0].as_str().unwrap();
    assert_eq!(
        image::load_from_memory(&decode(text.as_bytes())).unwrap().width(),
        64
    );
}

#[tokio::test]
async fn modelslabs_errors_have_status_200_unless_the_setting_is_strict() {
    let test = TestService::start(FakeExecutor::new().with_fault(Fault::always(
        "broken",
        FaultAt::Finish,
        FaultKind::Error(ErrorKind::Internal),
    )));
    let mut config = config();
    for strict in [false, true] {
        config.modelslab.strict_http_status = strict;
        let router = router_with(&test, &[("label", "secret")], config.clone());
        let at = |path: &str, body: Value| modelslab(&format!("/api/v1/enterprise/{path}"), body.to_string());
        let mut own = modelslab_body();
        own["key"] = json!("secret");
        let mut unknown_model = own.clone();
        unknown_model["model_id"] = json!("demoo");
        let mut broken = own.clone();
        broken["prompt"] = json!("broken");
        for (request, status, message) in [
            (at("img2img", modelslab_body()), 401, json!("Invalid API key")),
            (at("fetch/1", json!({})), 401, json!("Invalid API key")),
            (at("system_details", json!({})), 401, json!("Invalid API key")),
            (
                modelslab("/api/v1/enterprise/img2img", "{"),
                400,
                json!("Invalid API Request"),
            ),
            (
                at("img2img", json!({"key": "secret", "init_image": "AAAA"})),
                400,
                json!({"prompt": ["The prompt field is required."]}),
            ),
            (
                at("img2img", unknown_model),
                400,
                json!("Model not found: demoo (model_id); did you mean demo?"),
            ),
            (
                at("fetch/1", json!({"key": "secret"})),
                400,
                json!("Request not found"),
            ),
            (
                at("fetch/x", json!({"key": "secret"})),
                400,
                json!("Request not found"),
            ),
        ] {
            let reply = send(&router, request).await;
            let found = reply.json();
            assert_eq!(found["message"], message, "{found}");
            assert_eq!(reply.status, if strict { status } else { 200 }, "{message}");
            assert!(["error", "failed"].contains(&found["status"].as_str().unwrap()));
        }
        let failed = send(&router, at("img2img", broken)).await;
        let found = failed.json();
        assert_eq!(failed.status, if strict { 500 } else { 200 });
        assert_eq!(
            (&found["status"], &found["output"]),
            (&json!("failed"), &json!([])),
            "{found}"
        );
        assert!(found["id"].is_u64() && found["messege"].is_string());
        let good = send(&router, at("img2img", own)).await.json();
        assert_eq!(good["status"], "success");
        for (path, status) in [
            ("/api/v1/enterprise/nonsense", 404),
            ("/api/v1/enterprise/img2img", 405),
        ] {
            let reply = get(&router, path).await;
            assert_eq!((reply.status, &reply.json()["status"]), (status, &json!("error")));
        }
    }
}

#[tokio::test]
async fn modelslabs_long_job_is_answered_as_processing_and_fetched_later() {
    let (let_go, wait) = std::sync::mpsc::channel::<()>();
    let executor = FakeExecutor::new().with_hook(move |_| {
        let _ = wait.recv();
    });
    let test = TestService::start(executor);
    let mut config = config();
    config.modelslab.hold = Duration::from_millis(50);
    let router = router_with(&test, &[], config);
    let reply = send(
        &router,
        modelslab("/api/v1/enterprise/img2img", modelslab_body().to_string()),
    )
    .await
    .json();
    assert_eq!(
        (&reply["status"], &reply["output"]),
        (&json!("processing"), &json!([])),
        "{reply}"
    );
    assert_eq!(reply["message"], reply["messege"]);
    assert!(reply["eta"].as_u64().unwrap() > 0);
    let fetch = reply["fetch_result"].as_str().unwrap();
    let fetch = fetch.strip_prefix("http://pictures.test").unwrap().to_owned();
    let first = reply["future_links"][0]
        .as_str()
        .unwrap()
        .strip_prefix("http://pictures.test")
        .unwrap();
    assert_eq!(get(&router, first).await.status, 404);
    assert_eq!(
        send(&router, modelslab(&fetch, "")).await.json()["status"],
        "processing"
    );
    drop(let_go);
    for _ in 0..200 {
        let found = send(&router, modelslab(&fetch, "")).await.json();
        if found["status"] == "success" {
            assert_eq!(found["output"], reply["future_links"]);
            assert_eq!(get(&router, first).await.status, 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the job never ended");
}

#[tokio::test]
async fn models_come_into_memory_and_leave_it_by_their_names() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("me", "secret")]);
    let call = async |path: &str, key: &str| {
        let request = Request::post(path).header("authorization", format!("Bearer {key}"));
        send(&router, request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(call("/v1/models/demo/load", "wrong").await.status, 403);
    let loaded = call("/v1/models/demo.safetensors/load", "secret").await;
    assert_eq!(loaded.status, 200);
    let list = Request::get("/v1/models").header("authorization", "Bearer secret");
    let list = send(&router, list.body(Body::empty()).unwrap()).await.json();
    assert_eq!(list["models"][0]["in_memory"], true, "{list}");
    assert_eq!(
        call("/v1/models/demo/unload", "secret").await.json()["freed_bytes"],
        1
    );
    assert_eq!(
        test.service.status().await.engine.resident_models,
        Vec::<String>::new()
    );
    for act in ["load", "unload"] {
        let unknown = call(&format!("/v1/models/nothing/{act}"), "secret").await;
        assert_eq!(
            (unknown.status, unknown.json()["error"]["kind"].clone()),
            (404, json!("not_found"))
        );
    }
}

#[tokio::test]
async fn modelslabs_management_calls_answer() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let call = async |name: &str, body: Value| {
        send(
            &router,
            modelslab(&format!("/api/v1/enterprise/{name}"), body.to_string()),
        )
        .await
        .json()
    };
    assert_eq!(call("system_details", json!({})).await["status"], "ok");
    assert_eq!(
        call("schedulers_list", json!({})).await["schedulers"]
            .as_array()
            .unwrap()
            .len(),
        19
    );
    let models = call("get_all_models", json!({})).await;
    assert_eq!(
        (&models["status"], &models["models"][0]["model_id"]),
        (&json!("success"), &json!("demo"))
    );
    assert_eq!(
        call("verify_model", json!({"model_id": "demo"})).await["status"],
        "success"
    );
    assert_eq!(
        call("verify_model", json!({"model_id": "x"})).await["message"],
        "Model not exists on server"
    );
    assert_eq!(
        call(
            "load_model",
            json!({"model_id": "demo", "url": "https://x.test/m"})
        )
        .await,
        json!({"status": "success", "message": "model load started"})
    );
    let unknown = call("load_model_v2", json!({"model_id": "x"})).await;
    assert_eq!(unknown["message"], "Model not found: x (model_id)", "{unknown}");
    let unknown = call("load_vae", json!({"vae_id": "x"})).await;
    assert_eq!(unknown["status"], "error", "{unknown}");
    assert!(unknown["message"].to_string().contains("vae"), "{unknown}");
    assert_eq!(
        call("delete_model", json!({"model_id": "demo"})).await["message"],
        "Model deleted on server"
    );
    assert_eq!(
        call("delete_model", json!({"model_id": "x"})).await["status"],
        "error"
    );
    let nameless = call("delete_model", json!({})).await;
    assert!(nameless["message"].to_string().contains("model_id"), "{nameless}");
    for name in ["clear_cache", "update", "restart_server", "text2img"] {
        let found = call(name, json!({})).await;
        assert_eq!(found["status"], "error");
        assert!(found["message"].as_str().unwrap().starts_with(name), "{found}");
    }
}
