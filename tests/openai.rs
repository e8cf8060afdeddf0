//! OpenAI's dialect over the real binary: what Open WebUI sends, a stream and whoever leaves it, and both ways of pictures.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::client::{Reply, get, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;

async fn call(server: &TestServer, call: &str, body: &Value) -> Reply {
    let address = format!("{}/v1/images/{call}", server.base());
    send(http().post(address).json(body)).await
}

fn file_of(item: &Value) -> Vec<u8> {
    let text = item["b64_json"].as_str().expect("a file");
    STANDARD.decode(text).expect("base64")
}

/// The body of `backend/open_webui/routers/images.py` (`image_generations`) with the engine `openai`, as `aiohttp` 3.14 writes it:
/// Python's JSON, with a space behind each comma.
#[tokio::test(flavor = "multi_thread")]
async fn open_webuis_generation_is_understood() {
    let server = TestServer::start();
    let body = r#"{"model": "demo", "prompt": "a red house", "n": 1, "size": "512x512", "response_format": "b64_json"}"#;
    // An Azure version is put behind the path where one is set.
    let address = format!("{}/v1/images/generations?api-version=2025-04-01", server.base());
    let request = http()
        .post(address)
        .header("Authorization", "Bearer ")
        .header("Content-Type", "application/json")
        .header("User-Agent", "Python/3.11 aiohttp/3.14.5");
    let reply = send(request.body(body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let picture = pictures::decode(&file_of(&reply.json()["data"][0]));
    assert_eq!(picture.dimensions(), (512, 512));
}

/// The form of `image_edits` there: the fields as texts, then the files, `image` for one and `image[]` for a list.
#[tokio::test(flavor = "multi_thread")]
async fn open_webuis_edit_is_understood() {
    let server = TestServer::start();
    let boundary = "864a3d11a6fe4cb1a66922fe3826f243";
    for field in ["image", "image[]"] {
        let mut body = Vec::new();
        for (name, text) in [
            ("model", "demo"),
            ("prompt", "a red house"),
            ("n", "1"),
            ("size", "64x64"),
            ("background", "auto"),
            ("response_format", "b64_json"),
        ] {
            let part = format!(
                "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"{name}\"\
                 \r\n\r\n{text}\r\n"
            );
            body.extend(part.into_bytes());
        }
        let part = format!(
            "--{boundary}\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name=\"{field}\"; \
             filename=\"0b8e0f1e-61c9-4d0a-9d0b-3f5b7a0a3b6c.png\"\r\n\r\n"
        );
        body.extend(part.into_bytes());
        body.extend(pictures::bytes("small.png"));
        body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
        let request = http()
            .post(format!("{}/v1/images/edits", server.base()))
            .header(
                "Content-Type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .header("User-Agent", "Python/3.11 aiohttp/3.14.5");
        let reply = send(request.body(body)).await;
        assert_eq!(reply.status, 200, "{}", reply.json());
        let picture = pictures::decode(&file_of(&reply.json()["data"][0]));
        assert_eq!(picture.dimensions(), (64, 64), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_and_a_file_are_the_same_picture_in_every_format() {
    let server = TestServer::start();
    for format in ["png", "jpeg", "webp"] {
        let mut body = json!({
            "prompt": "a red house", "images": [{"image_url": pictures::base64("small.png")}],
            "steps": 2, "seed": 7, "output_format": format, "output_compression": 60,
        });
        let file = file_of(&call(&server, "edits", &body).await.json()["data"][0]);
        body["response_format"] = json!("url");
        let reply = call(&server, "edits", &body).await;
        let link = reply.json()["data"][0]["url"]
            .as_str()
            .expect("a link")
            .to_owned();
        assert!(link.ends_with(&format!(".{format}")), "{link}");
        let linked = get(&link).await;
        assert_eq!(linked.headers["content-type"], format!("image/{format}"));
        assert!(linked.body == file, "{format}");
        assert_eq!(
            reply.headers.contains_key("x-pentimento-ignored-fields"),
            format != "jpeg"
        );
        assert_eq!(
            image::guess_format(&file).unwrap().extensions_str()[0].replace("jpg", "jpeg"),
            format
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_without_a_transparent_pixel_is_refused_by_name() {
    let server = TestServer::start();
    let mut body = json!({
        "prompt": "x", "images": [{"image_url": pictures::base64("small.png")}], "mask": pictures::base64("small.png"),
    });
    let refused = call(&server, "edits", &body).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["param"]),
        (400, &json!("mask"))
    );
    let message = refused.json()["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(message.contains("transparent"), "{message}");
    // A picture of another kind, and of another size, which is stretched.
    body["mask"] = json!(pictures::base64("transparent.png"));
    let reply = call(&server, "edits", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_the_picture_as_it_is_made_and_cancels_the_job_of_who_leaves() {
    let server = TestServer::start();
    let mut body = json!({
        "prompt": "a red house", "size": "256x256", "steps": 40, "seed": 7, "stream": true, "partial_images": 3,
    });
    let reply = call(&server, "generations", &body).await;
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let (last, previews) = names.split_last().expect("events");
    assert_eq!(*last, "image_generation.completed", "{names:?}");
    assert!((1..=3).contains(&previews.len()), "{names:?}");
    assert!(
        previews
            .iter()
            .all(|name| *name == "image_generation.partial_image")
    );

    // Long enough that nobody waits for its end.
    body["steps"] = json!(150);
    body["size"] = json!("1024x1024");
    let request = http()
        .post(format!("{}/v1/images/generations", server.base()))
        .json(&body);
    let mut response = request.send().await.expect("the server answers");
    let id = response.headers()["x-job-id"].to_str().expect("an id").to_owned();
    response.chunk().await.expect("a piece of the stream");
    drop(response);
    let job = format!("{}/v1/jobs/{id}", server.base());
    let state = async || {
        get(&job).await.json()["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    while state().await == "running" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state().await, "cancelled");
}
