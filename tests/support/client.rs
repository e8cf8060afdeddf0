//! Requests as a plain HTTP client sends them.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::pictures;
use super::server::TestServer;

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The smallest request that the server accepts and that costs little: one evaluation of a 64x48 picture.
pub(crate) fn good_body() -> Value {
    json!({
        "model_name": "demo",
        "input_image": pictures::base64("small.png"),
        "prompt": "a red house under a blue sky",
        "steps": 1,
        "seed": 7,
    })
}

/// The same for ModelsLab's call.
pub(crate) fn good_modelslab_body() -> Value {
    json!({
        "key": "any",
        "model_id": "demo",
        "init_image": pictures::base64("small.png"),
        "prompt": "a red house under a blue sky",
        "width": 64,
        "height": 64,
        "num_inference_steps": 1,
        "seed": 7,
        "safety_checker": "no",
        "enhance_prompt": "no",
        "tomesd": "no",
    })
}

/// A client of the library, whose TLS has no provider until the process installs one: the server's own downloads bring theirs.
pub(crate) fn http() -> reqwest::Client {
    builder().build().expect("a client can be made")
}

/// The same, to be adjusted.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    // It is the same one, whoever was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// Sends any request.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.expect("the server answers");
    Reply {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.bytes().await.expect("the whole reply arrives"),
    }
}

/// `POST /v3/lcm-img2img`
pub(crate) async fn generate(server: &TestServer, body: &Value) -> Reply {
    let address = format!("{}/v3/lcm-img2img", server.base());
    send(http().post(address).json(body)).await
}

/// `GET` of a whole address.
pub(crate) async fn get(address: &str) -> Reply {
    send(http().get(address)).await
}

/// The addresses of the pictures in a reply.
pub(crate) fn addresses(reply: &Value) -> Vec<String> {
    let images = reply["images"].as_array().expect("the reply has images");
    images
        .iter()
        .map(|image| {
            image["image_url"]
                .as_str()
                .expect("each has an image_url")
                .to_owned()
        })
        .collect()
}

/// The bytes of every picture that a body makes.
pub(crate) async fn pictures_of(server: &TestServer, body: &Value) -> Vec<Bytes> {
    let reply = generate(server, body).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let mut pictures = Vec::new();
    for address in addresses(&reply.json()) {
        let picture = get(&address).await;
        assert_eq!(picture.status, 200, "{address}");
        pictures.push(picture.body);
    }
    pictures
}
