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

mod a1111_calls;
mod bad_fields;
mod bodies;
mod drop_in;
mod jobs;
mod limits;
mod mcp_calls;
mod modelslab_calls;
mod modelslab_operating;
mod modelslab_prompts;
mod openai_calls;
mod origins;

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

/// Waits until no job waits or runs, for ten seconds at most.
async fn no_job_is_left(test: &TestService) {
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
    no_job_is_left(&test).await;
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

#[tokio::test]
async fn models_come_into_memory_and_leave_it_by_their_names() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("me", "secret")]);
    let call = async |path: &str, key: &str| {
        let request = Request::post(path).header("authorization", format!("Bearer {key}"));
        send(&router, request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(call("/v1/models/demo/load", "wrong").await.status, 401);
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
