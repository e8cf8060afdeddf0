//! The calls of A1111's web UI through the whole application.

use base64::engine::general_purpose::STANDARD;

use super::*;

pub(super) fn a1111(path: &str, body: &Value) -> Request<Body> {
    Request::post(format!("/sdapi/v1/{path}"))
        .header("host", "pictures.test")
        .body(Body::from(body.to_string()))
        .unwrap()
}

pub(super) fn a1111_body() -> Value {
    json!({"init_images": [image_file()], "prompt": "a house", "width": 64, "height": 64, "steps": 3, "seed": 5})
}

/// The pictures of a reply.
fn pictures(reply: &Value) -> Vec<image::RgbImage> {
    let images = reply["images"].as_array().unwrap_or_else(|| panic!("{reply}"));
    let decoded = |image: &Value| {
        let bytes = STANDARD.decode(image.as_str().unwrap()).unwrap();
        image::load_from_memory(&bytes).unwrap().to_rgb8()
    };
    images.iter().map(decoded).collect()
}

fn info(reply: &Value) -> Value {
    serde_json::from_str(reply["info"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn images_come_in_the_reply_with_the_info_that_clients_parse() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = a1111_body();
    for (field, value) in [
        ("batch_size", json!(2)),
        ("negative_prompt", json!("fog")),
        ("sampler_name", json!("DPM++ 2M Karras")),
        ("override_settings", json!({"CLIP_stop_at_last_layers": 2})),
        ("unknown", json!(1)),
        ("styles", json!(["x"])),
    ] {
        body[field] = value;
    }
    let reply = send(&router, a1111("img2img", &body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.headers["x-pentimento-ignored-fields"], "unknown");
    assert!(reply.headers["x-job-id"].to_str().unwrap().starts_with("job_"));
    let found = reply.json();
    let sizes: Vec<_> = pictures(&found).iter().map(image::RgbImage::dimensions).collect();
    assert_eq!(sizes, [(64, 64), (64, 64)]);
    assert_eq!(found["parameters"]["steps"], 3);
    assert_eq!(found["parameters"]["init_images"], Value::Null);
    assert_eq!(found["warning"], "No effect in this version: styles.");
    let info = info(&found);
    assert_eq!(info["all_seeds"], json!([5, 6]));
    assert_eq!(info["sampler_name"], "DPM++ 2M Karras");
    assert_eq!(
        (&info["clip_skip"], &info["sd_model_name"]),
        (&json!(2), &json!("demo"))
    );
    assert_eq!(info["all_negative_prompts"], json!(["fog", "fog"]));
    let text = info["infotexts"][1].as_str().unwrap();
    assert!(
        text.starts_with("a house\nNegative prompt: fog\nSteps: 3, ") && text.contains("Seed: 6,"),
        "{text}"
    );
    // The very text that the file has.
    let file = json!({"image": found["images"][1]});
    let inside = send(&router, a1111("png-info", &file)).await.json();
    assert_eq!(inside["info"], text);
    assert_eq!(inside["parameters"]["Seed"], "6");
    assert_eq!(inside["parameters"]["Negative prompt"], "fog");
}

#[tokio::test]
async fn a_batch_of_images_is_painted_image_by_image() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = a1111_body();
    body["init_images"] = json!([image_file(), format!("data:image/png;base64,{}", image_file())]);
    body["n_iter"] = json!(2);
    body["include_init_images"] = json!(true);
    let found = send(&router, a1111("img2img", &body)).await.json();
    assert_eq!(pictures(&found).len(), 4);
    assert_eq!(info(&found)["all_seeds"], json!([5, 6, 7, 8]));
    assert_eq!(info(&found)["job_ids"].as_array().unwrap().len(), 4);
    assert_eq!(
        found["parameters"]["init_images"],
        json!([image_file(), image_file()])
    );
    body["init_images"][1] = json!(STANDARD.encode("no picture"));
    let refused = send(&router, a1111("img2img", &body)).await;
    assert_eq!(
        (refused.status, &refused.json()["detail"][0]["loc"]),
        (422, &json!(["body", "init_images", 1]))
    );
    no_job_is_left(&test).await;
}

#[tokio::test]
async fn a_named_batch_is_the_same_jobs_again() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = a1111_body();
    body["init_images"] = json!([image_file(), image_file()]);
    body["seed"] = json!(-1);
    let ask = async || {
        let mut request = a1111("img2img", &body);
        request
            .headers_mut()
            .insert("idempotency-key", "once".parse().unwrap());
        info(&send(&router, request).await.json())["job_ids"].clone()
    };
    let first = ask().await;
    assert_eq!((first.as_array().unwrap().len(), &ask().await), (2, &first));
}

#[tokio::test]
async fn text_to_image_needs_no_image() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let body =
        json!({"prompt": "a house", "width": 128, "height": 64, "steps": 2, "n_iter": 2, "enable_hr": false});
    let found = send(&router, a1111("txt2img", &body)).await.json();
    let sizes: Vec<_> = pictures(&found).iter().map(image::RgbImage::dimensions).collect();
    assert_eq!(sizes, [(128, 64), (128, 64)]);
    assert_eq!(info(&found)["denoising_strength"], Value::Null);
    let none = json!({"prompt": "a house", "send_images": false, "width": 64, "height": 64, "steps": 1});
    let found = send(&router, a1111("txt2img", &none)).await.json();
    assert_eq!(
        (
            &found["images"],
            info(&found)["all_seeds"].as_array().unwrap().len()
        ),
        (&json!([]), 1)
    );
}

#[tokio::test]
async fn the_key_is_a_password_or_a_bearers() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("tests", "sk_1")]);
    let call = async |header: Option<String>| {
        let mut request = Request::get("/sdapi/v1/samplers").body(Body::empty()).unwrap();
        if let Some(header) = header {
            request
                .headers_mut()
                .insert("authorization", header.parse().unwrap());
        }
        send(&router, request).await
    };
    let basic = |text: &str| Some(format!("Basic {}", STANDARD.encode(text)));
    for right in [basic("anybody:sk_1"), Some("Bearer sk_1".to_owned())] {
        assert_eq!(call(right).await.status, 200);
    }
    for wrong in [None, basic("sk_1:sk_2"), Some("Bearer sk_2".to_owned())] {
        let refused = call(wrong).await;
        assert_eq!(
            (refused.status, &refused.headers["www-authenticate"]),
            (401, &"Basic".parse().unwrap())
        );
        assert_eq!(refused.json()["error"], "HTTPException");
    }
}

#[tokio::test]
async fn options_belong_to_a_key() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("one", "sk_1"), ("two", "sk_2")]);
    let call = async |key: &str, body: Option<Value>| {
        let method = if body.is_some() { "POST" } else { "GET" };
        let request = Request::builder().method(method).uri("/sdapi/v1/options");
        let request = request.header("authorization", format!("Bearer {key}"));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        send(&router, request.body(body).unwrap()).await
    };
    let changed = call(
        "sk_1",
        Some(json!({"CLIP_stop_at_last_layers": 2, "show_progress": 1})),
    )
    .await;
    assert_eq!((changed.status, changed.json()), (200, Value::Null));
    assert_eq!(changed.headers["x-pentimento-ignored-fields"], "show_progress");
    assert_eq!(call("sk_1", None).await.json()["CLIP_stop_at_last_layers"], 2);
    let other = call("sk_2", None).await.json();
    assert_eq!(
        (&other["CLIP_stop_at_last_layers"], &other["sd_model_checkpoint"]),
        (&json!(1), &json!("demo"))
    );
    let wrong = call("sk_1", Some(json!({"sd_model_checkpoint": "dmeo"}))).await;
    assert_eq!(
        (wrong.status, &wrong.json()["detail"][0]["loc"]),
        (422, &json!(["body", "sd_model_checkpoint"]))
    );
}

#[tokio::test]
async fn a_job_is_seen_and_interrupted_by_its_owner_alone() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, start) = std::sync::mpsc::channel::<()>();
    let device = FakeExecutor::new().with_hook(move |_| {
        let _ = started.send(());
        let _ = held.recv();
    });
    let test = TestService::start(device);
    let router = router(&test, &[("one", "sk_1"), ("two", "sk_2")]);
    let with_key = |mut request: Request<Body>, key: &str| {
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        request
    };
    let progress = async |key: &str| {
        let request = Request::get("/sdapi/v1/progress?skip_current_image=true").body(Body::empty());
        send(&router, with_key(request.unwrap(), key)).await.json()
    };
    assert_eq!(
        (
            &progress("sk_1").await["progress"],
            &progress("sk_1").await["state"]["job_count"]
        ),
        (&json!(0.0), &json!(0))
    );
    let call = {
        let (router, request) = (router.clone(), with_key(a1111("img2img", &a1111_body()), "sk_1"));
        tokio::spawn(async move { send(&router, request).await })
    };
    tokio::task::spawn_blocking(move || start.recv())
        .await
        .unwrap()
        .unwrap();
    let seen = progress("sk_1").await;
    assert_eq!(seen["state"]["job"], "scripts_img2img");
    assert_eq!(
        (&seen["state"]["job_count"], seen["progress"].as_f64() > Some(0.0)),
        (&json!(1), true)
    );
    assert_eq!(progress("sk_2").await["state"]["job_count"], 0);
    let interrupt = async |key: &str| send(&router, with_key(a1111("interrupt", &json!({})), key)).await;
    assert_eq!(interrupt("sk_2").await.json(), json!({}));
    assert_eq!(progress("sk_1").await["state"]["job_count"], 1);
    assert_eq!(interrupt("sk_1").await.status, 200);
    drop(release);
    let ended = call.await.unwrap();
    assert_eq!(
        (ended.status, &ended.json()["detail"]),
        (500, &json!("the job was cancelled"))
    );
    assert_eq!(progress("sk_1").await["state"]["job_count"], 0);
}

#[tokio::test]
async fn what_there_is_not_is_said_in_the_web_uis_shape() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let unknown = get(&router, "/sdapi/v1/nothing").await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]),
        (404, &json!("HTTPException"))
    );
    let refused = send(&router, a1111("interrogate", &json!({}))).await;
    assert_eq!(refused.status, 501);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .starts_with("interrogate is not offered")
    );
    for list in ["sd-models", "samplers", "schedulers", "upscalers"] {
        let found = get(&router, &format!("/sdapi/v1/{list}")).await.json();
        assert!(found[0].is_object(), "{list}: {found}");
    }
    for list in [
        "sd-vae",
        "loras",
        "prompt-styles",
        "hypernetworks",
        "latent-upscale-modes",
    ] {
        assert_eq!(
            get(&router, &format!("/sdapi/v1/{list}")).await.json(),
            json!([]),
            "{list}"
        );
    }
    assert_eq!(
        get(&router, "/sdapi/v1/scripts").await.json()["txt2img"],
        json!([])
    );
    assert_eq!(
        send(&router, a1111("refresh-checkpoints", &json!({})))
            .await
            .json(),
        Value::Null
    );
}

#[tokio::test]
async fn what_is_skipped_is_left_out_of_a_batch() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, start) = std::sync::mpsc::channel::<()>();
    let device = FakeExecutor::new().with_hook(move |_| {
        let _ = started.send(());
        let _ = held.recv();
    });
    let test = TestService::start(device);
    let router = router(&test, &[]);
    let mut body = a1111_body();
    body["init_images"] = json!([image_file(), image_file(), image_file()]);
    let call = {
        let (router, request) = (router.clone(), a1111("img2img", &body));
        tokio::spawn(async move { send(&router, request).await })
    };
    tokio::task::spawn_blocking(move || start.recv())
        .await
        .unwrap()
        .unwrap();
    let all = async {
        while get(&router, "/sdapi/v1/progress").await.json()["state"]["job_count"] != 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    assert_eq!(send(&router, a1111("skip", &json!({}))).await.status, 200);
    drop(release);
    let reply = call.await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(pictures(&reply.json()).len(), 2);
    assert_eq!(info(&reply.json())["job_ids"].as_array().unwrap().len(), 2);
}
