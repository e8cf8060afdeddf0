//! Our own calls about jobs through the whole application, for jobs of both dialects.

use std::sync::mpsc;

use futures::StreamExt as _;
use pentimento_engine::testing::SeenAct;

use super::modelslab_calls::{modelslab, modelslab_body};
use super::*;

const KEYS: [(&str, &str); 2] = [("alice", "sk-a"), ("bob", "sk-b")];

fn call(method: &str, path: &str, key: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "pictures.test")
        .header("authorization", format!("Bearer {key}"))
        .body(Body::empty())
        .unwrap()
}

fn novita(prompt: &str, key: &str) -> Request<Body> {
    let mut request = post(&good(prompt));
    request
        .headers_mut()
        .insert("authorization", key.parse().unwrap());
    request
}

/// A device that waits for a word before each act.
fn held() -> (FakeExecutor, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel();
    let executor = FakeExecutor::new().with_hook(move |_: &SeenAct| {
        let _ = wait.recv();
    });
    (executor, go)
}

/// The id of the only job in a state.
async fn only_job(router: &Router, state: &str, key: &str) -> String {
    for _ in 0..200 {
        let found = send(router, call("GET", &format!("/v1/jobs?state={state}"), key))
            .await
            .json();
        if let [job] = found["jobs"].as_array().unwrap().as_slice() {
            return job["id"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there is no {state} job");
}

/// Server-sent events as a reader takes them apart: id, event and data.
#[derive(Debug, Default, PartialEq)]
struct Told {
    id: Option<String>,
    event: String,
    data: Value,
}

fn told(text: &str) -> Vec<Told> {
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    blocks
        .map(|block| {
            let mut told = Told::default();
            for line in block.lines() {
                match line.split_once(": ").or_else(|| line.split_once(':')) {
                    Some(("id", id)) => told.id = Some(id.to_owned()),
                    Some(("event", event)) => told.event = event.to_owned(),
                    Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
                    _ => {}
                }
            }
            told
        })
        .collect()
}

#[tokio::test]
async fn a_job_of_either_dialect_is_shown_under_its_id() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &KEYS);
    let of_novita = send(&router, novita("a house", "sk-a")).await;
    let mut body = modelslab_body();
    body["key"] = json!("sk-a");
    let of_modelslab = send(&router, modelslab("/api/v1/enterprise/img2img", body.to_string())).await;
    for (reply, dialect, images) in [(of_novita, "novita", 1), (of_modelslab, "modelslab", 2)] {
        assert_eq!(reply.status, 200, "{}", reply.json());
        let id = reply.headers["x-job-id"].to_str().unwrap();
        let shown = send(&router, call("GET", &format!("/v1/jobs/{id}"), "sk-a")).await;
        let job = shown.json();
        assert_eq!((shown.status, &job["id"]), (200, &json!(id)));
        assert_eq!(
            (&job["state"], &job["attempt"], &job["dialect"]),
            (&json!("succeeded"), &json!(1), &json!(dialect))
        );
        assert_eq!(job["recipe"]["prompt"], "a house");
        assert_eq!(job["recipe"]["seed"], 5);
        for open in ["progress", "queue_position", "seconds_left", "error"] {
            assert_eq!(job[open], Value::Null, "{open}");
        }
        assert!(job["finished_at"].as_str().unwrap().ends_with('Z'));
        let found = job["images"].as_array().unwrap();
        assert_eq!(found.len(), images);
        for image in found {
            let address = image["url"]
                .as_str()
                .unwrap()
                .strip_prefix("http://pictures.test")
                .unwrap();
            assert_eq!(get(&router, address).await.status, 200, "{address}");
        }
    }
    let listed = send(&router, call("GET", "/v1/jobs?limit=1", "sk-a"))
        .await
        .json();
    assert_eq!(listed["jobs"][0]["dialect"], "modelslab", "the newest first");
    let next = listed["next"].as_str().unwrap();
    let rest = send(&router, call("GET", &format!("/v1/jobs?after={next}"), "sk-a"))
        .await
        .json();
    assert_eq!(
        (&rest["jobs"][0]["dialect"], &rest["next"]),
        (&json!("novita"), &Value::Null)
    );
}

#[tokio::test]
async fn what_is_not_ones_own_or_no_job_is_not_found() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &KEYS);
    let id = send(&router, novita("a house", "sk-a")).await.headers["x-job-id"]
        .to_str()
        .unwrap()
        .to_owned();
    for path in [
        format!("/v1/jobs/{id}"),
        "/v1/jobs/job_00000000000000000000000000000007".to_owned(),
        "/v1/jobs/7".to_owned(),
        "/v1/jobs/..%2f..%2fetc".to_owned(),
    ] {
        for (method, path) in [
            ("GET", path.clone()),
            ("DELETE", path.clone()),
            ("GET", format!("{path}/events")),
        ] {
            let reply = send(&router, call(method, &path, "sk-b")).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["kind"]),
                (404, &json!("not_found")),
                "{method} {path}"
            );
        }
    }
    let listed = send(&router, call("GET", "/v1/jobs", "sk-b")).await.json();
    assert_eq!(listed, json!({"jobs": [], "next": null}));
    for (key, status) in [("sk-x", 401), ("", 401)] {
        let refused = send(&router, call("GET", "/v1/jobs", key)).await;
        assert_eq!(refused.status, status);
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    let wrong = send(&router, call("GET", "/v1/jobs?limit=1000", "sk-a")).await;
    assert_eq!(
        (wrong.status, &wrong.json()["error"]["kind"]),
        (400, &json!("invalid_input"))
    );
    assert_eq!(send(&router, call("PUT", "/v1/jobs", "sk-a")).await.status, 405);
}

#[tokio::test]
async fn cancelling_says_what_has_become_of_the_job() {
    let (executor, go) = held();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    let router = router(&test, &[]);
    let caller = |prompt: &'static str| {
        let router = router.clone();
        tokio::spawn(async move { send(&router, post(&good(prompt))).await })
    };
    let running = caller("a");
    let first = only_job(&router, "running", "").await;
    let queued = caller("b");
    let second = only_job(&router, "queued", "").await;
    let waits = send(&router, call("GET", &format!("/v1/jobs/{second}"), ""))
        .await
        .json();
    assert_eq!(waits["queue_position"], 1);
    assert!(waits["seconds_left"].as_f64().unwrap() > 0.0, "{waits}");
    for (id, call_of) in [(second, queued), (first, running)] {
        for _ in 0..2 {
            let reply = send(&router, call("DELETE", &format!("/v1/jobs/{id}"), "")).await;
            assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("cancelled")));
        }
        let told = call_of.await.unwrap();
        assert_ne!(told.status, 200, "its caller is told");
        assert_eq!(told.headers["x-job-id"], id.as_str());
    }
    drop(go);
    let done = send(&router, post(&good("c"))).await;
    let id = done.headers["x-job-id"].to_str().unwrap();
    let refused = send(&router, call("DELETE", &format!("/v1/jobs/{id}"), "")).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["kind"]),
        (409, &json!("conflict"))
    );
    let path = format!("/v1/jobs/{id}?delete=true");
    let deleted = send(&router, call("DELETE", &path, "")).await;
    assert_eq!(deleted.json(), json!({"id": id, "deleted": true}));
    assert_eq!(send(&router, call("DELETE", &path, "")).await.status, 404);
    let picture = done.json()["images"][0]["image_url"].as_str().unwrap().to_owned();
    let picture = get(&router, picture.strip_prefix("http://pictures.test").unwrap()).await;
    assert_eq!(picture.status, 404, "its link leads nowhere");
}

#[tokio::test]
async fn events_tell_a_life_and_go_on_where_their_reader_was() {
    let (executor, go) = held();
    let test = TestService::start(executor);
    let router = router(&test, &[]);
    let caller = tokio::spawn({
        let router = router.clone();
        let mut body = good("a");
        // The fake runs half of the steps then.
        (body["steps"], body["strength"]) = (json!(4), json!(0.5));
        async move { send(&router, post(&body)).await }
    });
    let id = only_job(&router, "running", "").await;
    let path = format!("/v1/jobs/{id}/events");
    let response = router.clone().oneshot(call("GET", &path, "")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("content-encoding"));
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    // Prepared, then the first of two evaluations, after which the device waits again.
    go.send(()).unwrap();
    go.send(()).unwrap();
    while !text.contains("event: preview") {
        let piece = tokio::time::timeout(Duration::from_secs(10), body.next())
            .await
            .unwrap();
        text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    assert!(
        text.starts_with("retry: 2000\n\n") || text.contains("retry: 2000"),
        "{text}"
    );
    let seen = told(&text);
    assert_eq!(
        (seen[0].event.as_str(), &seen[0].data["state"]),
        ("state", &json!("running"))
    );
    let progress = seen.iter().rfind(|event| event.event == "progress").unwrap();
    assert_eq!(progress.data, json!({"done": 1, "total": 2}));
    let preview = seen.last().unwrap();
    assert_eq!(
        (&preview.data["image"], &preview.data["done"]),
        (&json!(0), &json!(1))
    );
    let file = base64::engine::general_purpose::STANDARD.decode(preview.data["base64"].as_str().unwrap());
    assert_eq!(
        image::guess_format(&file.unwrap()).unwrap(),
        image::ImageFormat::Jpeg
    );
    drop(body);
    // Whoever comes back is told what is new, which is the end.
    let mut again = call("GET", &path, "");
    let last = preview.id.clone().unwrap();
    again.headers_mut().insert("last-event-id", last.parse().unwrap());
    let rest = tokio::spawn({
        let router = router.clone();
        async move { send(&router, again).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(go);
    let rest = rest.await.unwrap();
    let rest = told(std::str::from_utf8(&rest.body).unwrap());
    assert!(
        rest.iter()
            .all(|event| event.event != "state" && event.data["done"] != 1),
        "seen already: {rest:?}"
    );
    let end = rest.last().unwrap();
    assert_eq!((end.event.as_str(), end.id.as_deref()), ("end", Some("end")));
    assert_eq!(
        (&end.data["state"], &end.data["id"]),
        (&json!("succeeded"), &json!(id))
    );
    assert_eq!(end.data["images"].as_array().unwrap().len(), 1);
    assert_eq!(caller.await.unwrap().status, 200);
    // A browser that comes back once more is told to stop; who comes anew gets the end again.
    let mut over = call("GET", &path, "");
    over.headers_mut().insert("last-event-id", "end".parse().unwrap());
    assert_eq!(send(&router, over).await.status, 204);
    let anew = send(&router, call("GET", &path, "")).await;
    let anew = told(std::str::from_utf8(&anew.body).unwrap());
    assert_eq!(
        anew.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(),
        ["end"]
    );
}

#[tokio::test]
async fn watchers_leave_connections_and_seats_for_others() {
    let (executor, go) = held();
    let test = TestService::start(executor);
    let config = ApiConfig {
        max_connections: 8,
        ..config()
    };
    let router = router_with(&test, &[], config);
    let caller = tokio::spawn({
        let router = router.clone();
        async move { send(&router, post(&good("a"))).await }
    });
    let id = only_job(&router, "running", "").await;
    let path = format!("/v1/jobs/{id}/events?previews=false");
    let mut watching = Vec::new();
    for _ in 0..3 {
        let response = router.clone().oneshot(call("GET", &path, "")).await.unwrap();
        assert_eq!(response.status(), 200);
        watching.push(response);
    }
    let refused = send(&router, call("GET", &path, "")).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    watching.pop();
    assert_eq!(
        router
            .clone()
            .oneshot(call("GET", &path, ""))
            .await
            .unwrap()
            .status(),
        200
    );
    drop((watching, go));
    assert_eq!(caller.await.unwrap().status, 200);
}
