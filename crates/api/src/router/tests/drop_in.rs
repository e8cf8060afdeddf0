//! What clients of the two services rely on beside the documented calls.

use pentimento_service::Catalog;

use super::modelslab_calls::{modelslab, modelslab_body};
use super::*;

const IMG2IMG: &str = "/api/v1/enterprise/img2img";

async fn call(router: &Router, path: &str, body: &Value) -> Value {
    let reply = send(router, modelslab(path, body.to_string())).await;
    assert_eq!(reply.status, 200, "{path}");
    reply.json()
}

#[tokio::test]
async fn a_caller_without_a_key_is_told_nothing_of_calls_that_are_not_offered() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("tests", "right")]);
    for path in [
        "/api/v1/enterprise/sync_models",
        "/api/v1/enterprise/update_s3",
        "/api/v6/images/text2img",
        "/api/v4/dreambooth",
    ] {
        for key in [Value::Null, json!("wrong")] {
            let refused = call(&router, path, &json!({ "key": key })).await;
            assert_eq!(refused["message"], "Invalid API key", "{path}");
        }
        let told = call(&router, path, &json!({"key": "right"})).await;
        let message = told["message"].as_str().unwrap();
        assert!(message.contains("is not offered"), "{path}: {message}");
    }
}

#[tokio::test]
async fn inpainting_works_where_clients_edit_images() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = modelslab_body();
    body["mask_image"] = body["init_image"].clone();
    for folder in [
        "/api/v1/enterprise/image_editing",
        "/api/v6/image_editing",
        "/api/v3",
        "/api/v4/dreambooth",
        "/api/v5",
    ] {
        let made = call(&router, &format!("{folder}/inpaint"), &body).await;
        assert_eq!(made["status"], "success", "{folder}: {made}");
        for fetch in [
            format!("{folder}/fetch/{}", made["id"]),
            format!("/api/v6/fetch/{}", made["id"]),
        ] {
            let request = Request::get(&fetch).header("host", "pictures.test");
            let found = send(&router, request.body(Body::empty()).unwrap()).await.json();
            assert_eq!(found, made, "{fetch}");
        }
    }
}

#[tokio::test]
async fn a_model_whose_files_are_gone_is_not_there() {
    let text = "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"embedded:demo\"\n\
                [[model]]\nname = \"gone\"\nkind = \"checkpoint\"\nsource = \"./nothing-is-here\"\n";
    let config = TestConfig {
        catalog: Catalog::from_text(text, std::path::Path::new("nowhere/models.toml")).unwrap(),
        ..TestConfig::default()
    };
    let test = TestService::start_with(FakeExecutor::new(), config);
    let router = router(&test, &[]);
    let verify = async |name: &str| {
        call(
            &router,
            "/api/v1/enterprise/verify_model",
            &json!({"model_id": name}),
        )
        .await
    };
    assert_eq!(verify("demo").await["status"], "success");
    for name in ["gone", "unknown"] {
        let found = verify(name).await;
        let message = found["message"].as_str().unwrap();
        assert_eq!(
            (&found["status"], &found["messege"]),
            (&json!("error"), &found["message"])
        );
        assert!(message.starts_with("Model not exists on server"), "{message}");
        assert!(!message.contains("nothing-is-here"), "no path is told: {message}");
    }
    let models = call(&router, "/api/v1/enterprise/get_all_models", &json!({})).await;
    let available: Vec<&Value> = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["available"])
        .collect();
    assert_eq!(available, [true, false]);
    let old = get(&router, "/v2/models").await.json();
    let status: Vec<&Value> = old["data"]["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["download_status"])
        .collect();
    assert_eq!(status, [1, 0]);
}

#[tokio::test]
async fn a_wrong_value_beside_a_model_that_is_not_asked_for_is_no_fault() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = modelslab_body();
    body["lora_strength"] = json!("0.5,0.6");
    body["lora_model"] = json!(false);
    body["webhook"] = json!(0);
    let made = call(&router, IMG2IMG, &body).await;
    assert_eq!(made["status"], "success", "{made}");
    assert_eq!(made["meta"]["lora_strength"], Value::Null);
}

/// The names of an object's members, sorted.
fn names(object: &Value) -> Vec<&String> {
    object.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn a_job_that_runs_is_described_as_one_that_has_ended() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let device = FakeExecutor::new().with_hook(move |_| {
        let _ = held.recv();
    });
    let test = TestService::start(device);
    let mut config = config();
    config.modelslab.hold = Duration::from_millis(10);
    let router = router_with(&test, &[], config);
    let mut body = modelslab_body();
    body["use_karras_sigmas"] = Value::Null;
    let first = call(&router, IMG2IMG, &body).await;
    let second = call(&router, IMG2IMG, &body).await;
    let details = async || call(&router, "/api/v1/enterprise/system_details", &json!({})).await;
    let seconds = |value: &Value| value.as_u64().unwrap();
    assert_eq!(first["status"], "processing", "{first}");
    assert!(seconds(&first["eta"]) >= 1 && seconds(&second["eta"]) >= seconds(&first["eta"]));
    assert!(seconds(&details().await["queue_time"]) >= 1);
    drop(release);
    let fetch = format!("/api/v1/enterprise/fetch/{}", first["id"]);
    let ended = async {
        loop {
            let found = call(&router, &fetch, &json!({})).await;
            if found["status"] != "processing" {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(names(&first["meta"]), names(&ended["meta"]));
    assert_eq!(first["meta"], ended["meta"]);
    assert_eq!(
        (&ended["meta"]["scheduler"], &ended["meta"]["use_karras_sigmas"]),
        (&json!("PNDMScheduler"), &json!("no"))
    );
    assert_eq!(ended["nsfw_content_detected"], false);
}

#[tokio::test]
async fn a_run_that_cannot_be_is_refused_with_its_field() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = modelslab_body();
    body["scheduler"] = json!("LCMScheduler");
    body["num_inference_steps"] = json!(60);
    let refused = call(&router, IMG2IMG, &body).await;
    let sentence = refused["message"]["num_inference_steps"][0].as_str().unwrap();
    assert!(
        sentence.starts_with("The num inference steps field cannot be used: 60 is more than the 50 steps"),
        "{sentence}"
    );
    body["scheduler"] = json!("DPMSolverSinglestepScheduler");
    body["algorithm_type"] = json!("sde-dpmsolver");
    let refused = call(&router, IMG2IMG, &body).await;
    assert!(refused["message"]["algorithm_type"][0].is_string(), "{refused}");
}

#[tokio::test]
async fn both_dialects_refuse_a_weight_by_its_field() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = modelslab_body();
    body["prompt"] = json!("a (red:1.2) house BREAK [blue]");
    let made = call(&router, IMG2IMG, &body).await;
    assert_eq!(made["status"], "success", "{made}");
    assert!(made.get("warning").is_none(), "{made}");
    body["negative_prompt"] = json!("(red:99999)");
    let refused = call(&router, IMG2IMG, &body).await;
    let sentence = refused["message"]["negative_prompt"][0].as_str().unwrap();
    assert!(sentence.contains("a weight of 99999"), "{sentence}");
    let made = send(&router, post(&good("a (red) house BREAK a garden")))
        .await
        .json();
    assert!(made.get("warning").is_none(), "{made}");
    let refused = send(&router, post(&good("a (red:99999) house"))).await.json();
    assert_eq!(refused["metadata"]["field"], "prompt", "{refused}");
}
