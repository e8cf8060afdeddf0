//! OpenAI's calls through the whole application: bodies in both encodings, replies of all kinds, and refusals.

use base64::engine::general_purpose::STANDARD;

use super::*;

pub(super) async fn openai(router: &Router, call: &str, body: &Value) -> Reply {
    let request = Request::post(format!("/v1/images/{call}"))
        .header("host", "pictures.test")
        .header("content-type", "application/json");
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

fn file() -> Vec<u8> {
    STANDARD.decode(image_file()).unwrap()
}

/// A form with one file under this name.
fn form(boundary: &str, (name, file): (&str, &[u8]), texts: &[(&str, &str)]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, text) in texts {
        let part =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let part = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\
         content-type: image/png\r\n\r\n"
    );
    body.extend_from_slice(part.as_bytes());
    body.extend_from_slice(file);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Request::post("/v1/images/edits")
        .header("host", "pictures.test")
        .header(
            "content-type",
            format!("multipart/form-data; boundary={boundary}"),
        )
        .body(Body::from(body))
        .unwrap()
}

fn size_of(item: &Value) -> (u32, u32) {
    let file = STANDARD.decode(item["b64_json"].as_str().unwrap()).unwrap();
    image::load_from_memory(&file).unwrap().to_rgb8().dimensions()
}

#[tokio::test]
async fn forms_and_json_give_files_with_their_seeds() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let texts = [
        ("prompt", "a house"),
        ("model", "demo"),
        ("n", "2"),
        ("seed", "5"),
    ];
    for name in ["image", "image[]"] {
        let reply = send(&router, form("B", (name, &file()), &texts)).await;
        let found = reply.json();
        assert_eq!(reply.status, 200, "{found}");
        assert!(reply.headers.contains_key("x-job-id") && reply.headers.contains_key("x-request-id"));
        let length: usize = reply.headers["content-length"].to_str().unwrap().parse().unwrap();
        assert_eq!(length, reply.body.len());
        let seeds = [&found["data"][0]["seed"], &found["data"][1]["seed"]];
        assert_eq!(seeds, [&json!(5), &json!(6)]);
        assert_eq!(size_of(&found["data"][1]), (24, 16));
        assert_eq!(found["size"], "24x16");
        let shape = (&found["output_format"], &found["quality"], &found["background"]);
        assert_eq!(shape, (&json!("png"), &json!("medium"), &json!("opaque")));
        assert!(found["created"].as_u64().unwrap() > 1_000_000_000);
        assert_eq!(found["usage"]["total_tokens"], 0);
    }
    let body =
        json!({"prompt": "a house", "images": [{"image_url": image_file()}], "size": "96x64", "unknown": 1});
    let reply = openai(&router, "edits", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(size_of(&reply.json()["data"][0]), (96, 64));
    assert_eq!(reply.headers["x-pentimento-ignored-fields"], "unknown");
    assert_eq!(test.parts.memory.held(pentimento_types::MemoryUse::Replies), 0);
}

#[tokio::test]
async fn generations_and_variations_give_links_where_they_are_asked_for() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let words = json!({"prompt": "a house", "size": "64x64", "response_format": "url"});
    let variation = json!({"image": image_file(), "model": "dall-e-2", "size": "256x256"});
    for (call, body, side) in [("generations", words, 64), ("variations", variation, 256)] {
        let reply = openai(&router, call, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.json());
        let address = reply.json()["data"][0]["url"].as_str().unwrap().to_owned();
        let file = get(&router, address.strip_prefix("http://pictures.test").unwrap()).await;
        let picture = image::load_from_memory(&file.body).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (side, side), "{call}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_every_image_and_an_error_is_told_in_it() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut body = json!({"prompt": "a house", "image": image_file(), "n": 2, "seed": 8, "stream": true, "partial_images": 1});
    let reply = openai(&router, "edits", &body).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let events: Vec<(&str, Value)> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("event: ")?.split_once("\ndata: "))
        .map(|(name, data)| (name, serde_json::from_str(data).unwrap()))
        .collect();
    let done: Vec<&Value> = events
        .iter()
        .filter(|(name, _)| *name == "image_edit.completed")
        .map(|(_, data)| data)
        .collect();
    assert_eq!(done.len(), 2, "{text}");
    for (data, seed) in done.iter().zip([8, 9]) {
        assert_eq!(
            (&data["type"], &data["seed"]),
            (&json!("image_edit.completed"), &json!(seed))
        );
        assert_eq!(size_of(data), (24, 16));
        assert!(data["usage"]["input_tokens_details"]["text_tokens"].is_number());
    }
    for (name, data) in &events[..events.len() - 2] {
        assert_eq!(
            (*name, &data["partial_image_index"]),
            ("image_edit.partial_image", &json!(0))
        );
    }
    // Refused before there is a stream.
    body["model"] = json!("nothing");
    let refused = openai(&router, "edits", &body).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (404, &json!("model"))
    );
}

#[tokio::test]
async fn a_form_that_is_sent_again_is_the_same_job_whatever_its_boundary() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let send_as = async |boundary: &str, prompt: &str| {
        let mut request = form(boundary, ("image", &file()), &[("prompt", prompt)]);
        let headers = request.headers_mut();
        headers.insert("idempotency-key", "once".parse().unwrap());
        send(&router, request).await
    };
    let first = send_as("A", "a house").await;
    let again = send_as("B", "a house").await;
    assert_eq!(
        (first.status, &first.headers["x-job-id"]),
        (200, &again.headers["x-job-id"])
    );
    let other = send_as("A", "a tree").await;
    assert_eq!(
        (other.status, &other.json()["error"]["param"]),
        (409, &json!("Idempotency-Key"))
    );
}

#[tokio::test]
async fn keys_paths_and_models_are_refused_in_openais_words() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("me", "sk_1")]);
    let call = async |path: &str, key: &str| {
        let request = Request::post(path).header("authorization", key);
        let body = json!({"prompt": "x", "model": "dmeo", "size": "64x64"});
        send(&router, request.body(Body::from(body.to_string())).unwrap()).await
    };
    for (path, key, status, code) in [
        ("/v1/images/generations", "", 401, "invalid_api_key"),
        ("/v1/images/generations", "Bearer sk_2", 401, "invalid_api_key"),
        ("/v1/images/generations", "Bearer sk_1", 404, "model_not_found"),
        ("/v1/images/nothing", "Bearer sk_1", 404, "unknown_url"),
    ] {
        let refused = call(path, key).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (status, &json!(code)),
            "{path} {key}"
        );
        let request_id = refused.headers["x-request-id"].to_str().unwrap();
        assert_eq!(refused.json()["error"]["request_id"], request_id);
    }
    assert_eq!(get(&router, "/v1/images/edits").await.status, 405);
}

#[tokio::test]
async fn the_list_of_models_is_ours_and_openais() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let list = get(&router, "/v1/models").await.json();
    assert_eq!(
        (&list["object"], &list["models"][0]["name"]),
        (&json!("list"), &json!("demo"))
    );
    for model in [
        list["data"][0].clone(),
        get(&router, "/v1/models/demo").await.json(),
    ] {
        assert_eq!(
            (&model["id"], &model["object"]),
            (&json!("demo"), &json!("model")),
            "{model}"
        );
        assert!(model["created"].is_u64() && model["owned_by"].is_string());
        assert_eq!(model["kind"], "checkpoint");
    }
    let refused = get(&router, "/v1/models/dmeo").await;
    assert_eq!(refused.status, 404);
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`demo`")
    );
}
