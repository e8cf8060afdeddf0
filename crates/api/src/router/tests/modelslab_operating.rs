//! ModelsLab's calls that act on the server: whom they are for, and what they do.

use pentimento_service::{KeyFile, NewKey, ServiceConfig};
use pentimento_types::{Clock as _, SystemClock};

use super::modelslab_calls::{modelslab, modelslab_body};
use super::*;

fn call(name: &str, body: &Value) -> Request<Body> {
    modelslab(&format!("/api/v1/enterprise/{name}"), body.to_string())
}

#[tokio::test]
async fn an_uploaded_picture_is_named_by_its_link_without_the_network() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let upload = json!({"base64_image": image_file(), "image_type": "png"});
    let reply = send(&router, call("upload_image", &upload)).await.json();
    assert_eq!(
        (&reply["status"], &reply["message"], &reply["W"], &reply["H"]),
        (
            &json!("success"),
            &json!("image uploaded"),
            &json!(24),
            &json!(16)
        ),
        "{reply}"
    );
    assert!(reply.get("warning").is_none(), "{reply}");
    let link = reply["image_url"].as_str().unwrap();
    let path = link.strip_prefix("http://pictures.test").unwrap();
    assert!(path.starts_with("/files/") && path.ends_with(".png"), "{path}");
    let kept = get(&router, path).await;
    assert_eq!(
        (kept.status, &kept.headers["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    let file = base64::engine::general_purpose::STANDARD
        .decode(image_file())
        .unwrap();
    assert_eq!(kept.body, file, "as it came");

    let mut body = modelslab_body();
    let picture = async |body: &Value| {
        let reply = send(&router, call("img2img", body)).await.json();
        assert_eq!(reply["status"], "success", "{reply}");
        let address = reply["output"][0].as_str().unwrap().to_owned();
        let file = get(&router, address.strip_prefix("http://pictures.test").unwrap())
            .await
            .body;
        (address, file)
    };
    let (address, expected) = picture(&body).await;
    // Nobody listens under this name: the signature is enough.
    body["init_image"] = json!(link);
    assert_eq!(picture(&body).await.1, expected);
    // Of a finished picture, too.
    body["init_image"] = json!(address);
    assert_ne!(picture(&body).await.1, expected);
    // One that was changed is fetched as any other address, and there is nobody.
    body["init_image"] = json!(link.replace("upload_", "uploax_"));
    let refused = send(&router, call("img2img", &body)).await.json();
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .starts_with("Unable to fetch image from provided URL (init_image)"),
        "{refused}"
    );
    let other = json!({"base64_image": image_file(), "image_type": "jpg"});
    let warned = send(&router, call("upload_image", &other)).await.json();
    assert_eq!(warned["image_type"], "png");
    assert!(
        warned["warning"].as_str().unwrap().contains("the file is png"),
        "{warned}"
    );
}

#[tokio::test]
async fn a_queue_is_cleared_of_ones_own_requests_or_by_the_operator_of_all() {
    let (let_go, wait) = std::sync::mpsc::channel::<()>();
    let executor = FakeExecutor::new().with_hook(move |_| {
        let _ = wait.recv();
    });
    let config = TestConfig {
        service: ServiceConfig {
            running_jobs: 1,
            ..TestConfig::default().service
        },
        ..TestConfig::default()
    };
    let test = TestService::start_with(executor, config);
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::in_folder(folder.path());
    let [one, two, boss] = [("one", false), ("two", false), ("boss", true)].map(|(label, admin)| {
        let new = NewKey {
            admin,
            ..NewKey::named(label)
        };
        file.add(&new, SystemClock.wall()).unwrap()
    });
    let keys = KeyRing::new([]).with_file(file).unwrap();
    let mut config = super::config();
    config.modelslab.hold = Duration::ZERO;
    let router = build_router(AppState::new(test.service.clone(), keys, config, room(GIBIBYTE)));
    let ask = async |name: &str, key: &str| {
        let mut body = modelslab_body();
        body["key"] = json!(key);
        send(&router, call(name, &body)).await.json()
    };
    let state = async |number: &Value, key: &str| {
        let fetched = send(&router, call(&format!("fetch/{number}"), &json!({"key": key})))
            .await
            .json();
        fetched["status"].as_str().unwrap().to_owned()
    };
    let running = ask("img2img", &one).await["id"].clone();
    for _ in 0..200 {
        if test.service.status().await.jobs.running == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let own = ask("img2img", &one).await["id"].clone();
    let others = ask("img2img", &two).await["id"].clone();
    let cleared = ask("clear_queue", &one).await;
    assert_eq!(
        (&cleared["status"], &cleared["cancelled"]),
        (&json!("success"), &json!(1)),
        "{cleared}"
    );
    assert_eq!(state(&own, &one).await, "failed");
    assert_eq!(state(&others, &two).await, "processing");
    assert_eq!(ask("clear_queue", &boss).await["cancelled"], 1);
    assert_eq!(state(&others, &two).await, "failed");
    assert_eq!(state(&running, &one).await, "processing", "what runs goes on");
    for name in ["clear_cache", "restart_server"] {
        let refused = ask(name, &two).await;
        assert_eq!(refused["message"], "This API key may not do that", "{name}");
    }
    assert_eq!(
        ask("clear_cache", &boss).await["message"],
        "Cache cleared successfully"
    );
    drop(let_go);
}

#[tokio::test]
async fn whoever_runs_the_router_is_told_of_a_restart() {
    let test = TestService::start(FakeExecutor::new());
    let state = AppState::new(test.service.clone(), KeyRing::new([]), config(), room(GIBIBYTE));
    let switch = state.restart_switch();
    let router = build_router(state);
    let reply = get(&router, "/api/v1/enterprise/restart_server").await;
    assert_eq!(reply.status, 405, "a link alone does nothing");
    let early = send(&router, call("restart_server", &json!({}))).await.json();
    assert!(
        early["message"].as_str().unwrap().contains("is not offered"),
        "{early}"
    );
    switch.heed();
    let asked = switch.asked();
    let none = tokio::time::timeout(Duration::from_millis(50), asked).await;
    assert!(none.is_err());
    let reply = send(&router, call("restart_server", &json!({}))).await.json();
    assert_eq!(
        reply,
        json!({"message": "server restarting", "status": "success"})
    );
    tokio::time::timeout(Duration::from_secs(10), switch.asked())
        .await
        .unwrap();
}
