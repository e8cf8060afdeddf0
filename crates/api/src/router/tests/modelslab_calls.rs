//! ModelsLab's calls through the whole application.

use super::*;

pub(super) fn modelslab(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("host", "pictures.test")
        .body(body.into())
        .unwrap()
}

pub(super) fn modelslab_body() -> Value {
    json!({"key": "k", "model_id": "demo", "prompt": "a house", "init_image": image_file(), "width": "64",
        "height": 64, "samples": "2", "num_inference_steps": "3", "seed": 5, "track_id": 7, "enhance_prompt": "no"})
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
    for name in ["sync_models", "update", "update_s3", "reset_s3", "text2img"] {
        let found = call(name, json!({})).await;
        assert_eq!(found["status"], "error");
        assert!(found["message"].as_str().unwrap().starts_with(name), "{found}");
    }
}
