//! ModelsLab's calls that act on the server, and what its prompts become with a language model: the real binary.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{get, good_modelslab_body, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;

async fn call(server: &TestServer, name: &str, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/{name}", server.base());
    send(http().post(address).json(body)).await.json()
}

async fn picture(reply: &Value) -> bytes::Bytes {
    let link = reply["output"][0].as_str();
    get(link.unwrap_or_else(|| panic!("no picture: {reply}")))
        .await
        .body
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_picture_is_a_picture_of_requests_on_a_server_that_reaches_no_private_address() {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "600")]);
    let mut body = good_modelslab_body();
    let expected = picture(&call(&server, "img2img", &body).await).await;
    let upload = json!({"key": "any", "base64_image": pictures::base64("small.png"), "image_type": "png"});
    let kept = call(&server, "upload_image", &upload).await;
    assert_eq!(
        (&kept["status"], kept.get("warning")),
        (&json!("success"), None),
        "{kept}"
    );
    let link = kept["image_url"].as_str().unwrap();
    assert_eq!(get(link).await.body, pictures::bytes("small.png"));
    body["init_image"] = json!(link);
    assert_eq!(picture(&call(&server, "img2img", &body).await).await, expected);
    body["mask_image"] = json!(link);
    assert_eq!(call(&server, "inpaint", &body).await["status"], "success");
    // A link that somebody has changed leads nowhere, and the server's own address is a private one.
    body["init_image"] = json!(link.replace("upload_", "uploaded_"));
    let refused = call(&server, "img2img", &body).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .starts_with("Unable to fetch image from provided URL (init_image)"),
        "{refused}"
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_the_same_process_with_the_jobs_of_before() {
    // A port that was free a moment ago, so that the server is found again.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("pentimento.toml");
    fs_err::write(
        &settings,
        format!("listen = \"{listen}\"\nmodelslab_hold_seconds = 0\n"),
    )
    .unwrap();
    let data = folder.path().join("data");
    let log = fs_err::File::create(folder.path().join("server.log")).unwrap();
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .arg("--config")
        .arg(&settings)
        .args(["serve", "--data"])
        .arg(&data)
        .current_dir(folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(log.into_parts().0)
        .spawn()
        .unwrap();
    let base = format!("http://{listen}");
    let up = async || {
        for _ in 0..1200 {
            let ready = http().get(format!("{base}/readyz")).send().await;
            if ready.is_ok_and(|reply| reply.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server does not come up");
    };
    let ask = async |name: String, body: &Value| {
        let address = format!("{base}/api/v1/enterprise/{name}");
        send(http().post(address).json(body)).await.json()
    };
    let started = || {
        let log = fs_err::read_to_string(folder.path().join("server.log")).unwrap();
        log.matches("the server is ready").count()
    };
    up().await;
    let mut body = good_modelslab_body();
    body["num_inference_steps"] = json!(20);
    let mut numbers = Vec::new();
    for seed in 0..4 {
        body["seed"] = json!(seed);
        numbers.push(ask("img2img".to_owned(), &body).await["id"].clone());
    }
    assert_eq!(started(), 1);
    let restarting = ask("restart_server".to_owned(), &json!({"key": "any"})).await;
    assert_eq!(
        restarting,
        json!({"message": "server restarting", "status": "success"})
    );
    for _ in 0..1200 {
        if started() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(started(), 2, "it has not started again");
    assert!(server.try_wait().unwrap().is_none(), "the process is the same");
    up().await;
    for number in numbers {
        let mut reply = Value::Null;
        for _ in 0..1200 {
            reply = ask(format!("fetch/{number}"), &json!({"key": "any"})).await;
            if reply["status"] != "processing" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(reply["status"], "success", "{reply}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_stop_during_a_restart_stays_stopped() {
    let mut server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")]);
    let mut body = good_modelslab_body();
    for (field, value) in [("num_inference_steps", 150), ("width", 512), ("height", 512)] {
        body[field] = json!(value);
    }
    body["strength"] = json!(1.0);
    assert_eq!(call(&server, "img2img", &body).await["status"], "processing");
    let running = async || {
        let ready = get(&format!("{}/readyz", server.base())).await.json();
        ready["jobs"]["running"] == 1
    };
    while !running().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        call(&server, "restart_server", &json!({"key": "any"})).await["status"],
        "success"
    );
    while !server.log().contains("stopping: running jobs") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    assert_eq!(server.log().matches("the server is ready").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_model_of_the_catalogue_goes_on_with_prompts_in_listed_words() {
    let folder = tempfile::tempdir().unwrap();
    let model =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/prompt_enhancer/model");
    let catalogue = folder.path().join("models.toml");
    let text = format!(
        "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"embedded:demo\"\n\n\
         [[model]]\nname = \"tiny-words\"\nkind = \"prompt_enhancer\"\nsource = {:?}\n",
        model.canonicalize().unwrap()
    );
    fs_err::write(&catalogue, text).unwrap();
    let settings = [
        ("PENTIMENTO_PROMPT_ENHANCER", "tiny-words"),
        ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "600"),
    ];
    let server = TestServer::start_with(&["--models", catalogue.to_str().unwrap()], &settings);
    let mut body = good_modelslab_body();
    body["enhance_prompt"] = json!("yes");
    body["guidance_scale"] = json!(7.5);
    let reply = call(&server, "img2img", &body).await;
    assert_eq!(
        (&reply["status"], reply.get("warning")),
        (&json!("success"), None),
        "{reply}"
    );
    let (asked, prompt) = (
        body["prompt"].as_str().unwrap(),
        reply["meta"]["prompt"].as_str().unwrap(),
    );
    let added = prompt
        .strip_prefix(&format!("{asked}, "))
        .unwrap_or_else(|| panic!("{prompt}"));
    // All that its vocabulary and the list have in common.
    let listed = [
        "sharp",
        "focus",
        "cinematic",
        "lighting",
        "intricate",
        "detailed",
        "soft",
        "golden",
        "highly",
        "high",
        "photo",
        "light",
        "hour",
    ];
    for word in added.split([',', ' ']).filter(|word| !word.is_empty()) {
        assert!(listed.contains(&word), "{word} in {prompt}");
    }
    assert!(
        reply["meta"]["negative_prompt"]
            .as_str()
            .unwrap()
            .starts_with("((out of frame)), ")
    );
    let again = call(&server, "img2img", &body).await;
    assert_eq!(again["meta"]["prompt"], prompt);
    assert_eq!(picture(&again).await, picture(&reply).await);
    // It stays in memory when what nobody uses leaves.
    let held = async || {
        let models = get(&format!("{}/v1/models", server.base())).await.json();
        models["memory"]["weights"]["held_bytes"].as_u64().unwrap()
    };
    assert!(held().await > 0);
    let cleared = call(&server, "clear_cache", &json!({"key": "any"})).await;
    assert_eq!(cleared["models"], json!(["demo"]), "{cleared}");
    let kept = held().await;
    assert!(
        kept > 0 && kept < cleared["freed_bytes"].as_u64().unwrap(),
        "the language model stays: {kept}, {cleared}"
    );
    assert_eq!(call(&server, "img2img", &body).await["meta"]["prompt"], prompt);
    assert!(held().await > kept);
}
