//! What the server says of itself: the OpenAPI document, its examples, and the page for people.

use serde_json::{Value, json};

use crate::support::any_size;
use crate::support::client::{generate, get, good_body, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;

async fn document(server: &TestServer, path: &str) -> Value {
    let reply = get(&format!("{}{path}", server.base())).await;
    assert_eq!(reply.status, 200, "{path}");
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_works_as_it_is() {
    let server = TestServer::start();
    let whole = document(&server, "/openapi.json").await;
    let mut sent = Vec::new();
    for (path, methods) in whole["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            // This server has no catalogue with a VAE in it.
            if example.is_null() || path.ends_with("/load_vae") {
                continue;
            }
            assert_eq!(method, "post", "{path}");
            let request = http().post(format!("{}{path}", server.base())).json(example);
            let reply = send(request).await;
            assert_eq!(reply.status, 200, "{path}");
            let reply = reply.json();
            assert_ne!(reply["status"], "error", "{path}: {reply}");
            assert_eq!(reply.get("warning"), None, "{path}: {reply}");
            sent.push(path.clone());
        }
    }
    for path in [
        "/v3/lcm-img2img",
        "/api/v1/enterprise/img2img",
        "/api/v1/enterprise/inpaint",
    ] {
        assert!(
            sent.iter().any(|known| known == path),
            "{path} has no example: {sent:?}"
        );
    }
}

/// RFC 9110 asks for `WWW-Authenticate` at each 401, and the document says which.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_is_told_how_one_is_sent() {
    let server = TestServer::start_with(&["--key", "me=sk_secret"], &[]);
    let whole: Value = document(&server, "/openapi.json").await;
    let mut told = std::collections::BTreeSet::new();
    for (path, methods) in whole["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let address = format!("{}{}", server.base(), path.replace(['{', '}'], ""));
            let reply = send(http().request(method, address).json(&json!({}))).await;
            if reply.status != 401 {
                continue;
            }
            let header = reply.headers["www-authenticate"].to_str().unwrap();
            let described = &operation["responses"]["401"]["headers"]["WWW-Authenticate"]["schema"];
            assert_eq!(described, &json!({"enum": [header]}), "{path}");
            told.insert((operation["tags"][0].as_str().unwrap(), header.to_owned()));
        }
    }
    let told: Vec<_> = told.iter().map(|(tag, header)| (*tag, header.as_str())).collect();
    assert_eq!(
        told,
        [("a1111", "Basic"), ("openai", "Bearer"), ("own", "Bearer")]
    );
}

/// Its `GET`s without parameters in the path, and the statuses that the document has for them.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_looked_at_answers_as_the_document_says() {
    let server = TestServer::start();
    let whole = document(&server, "/openapi.json").await;
    let mut looked = 0;
    for (path, methods) in whole["paths"].as_object().unwrap() {
        if path.contains('{') || methods.get("get").is_none() {
            continue;
        }
        let reply = get(&format!("{}{path}", server.base())).await;
        let status = reply.status.as_u16().to_string();
        assert!(
            methods["get"]["responses"].get(&status).is_some(),
            "{path}: {status} is not described"
        );
        looked += 1;
    }
    assert!(looked >= 7, "{looked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_has_its_own_document_and_people_have_a_page() {
    let server = TestServer::start();
    for (part, path) in [
        ("novita", "/v3/lcm-img2img"),
        ("modelslab", "/api/v1/enterprise/img2img"),
        ("a1111", "/sdapi/v1/img2img"),
        ("own", "/v1/jobs"),
    ] {
        let part = document(&server, &format!("/openapi/{part}.json")).await;
        assert!(part["paths"].get(path).is_some(), "{path}");
        assert_eq!(part["tags"].as_array().map(Vec::len), Some(1));
        assert_eq!(part["openapi"], json!("3.1.0"));
    }
    assert_eq!(
        get(&format!("{}/openapi/other.json", server.base())).await.status,
        404
    );
    let page = get(&format!("{}/docs", server.base())).await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    assert_eq!(page.status, 200);
    assert!(
        text.contains("num_inference_steps") && text.contains(&server.base()),
        "{text}"
    );
    let style = get(&format!("{}/playground/docs.css", server.base())).await;
    assert_eq!(style.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_ours_says_where_it_comes_from() {
    let server = TestServer::start();
    let verified = async |file: Vec<u8>| {
        let address = format!("{}/v1/provenance/verify", server.base());
        let reply = send(http().post(address).body(file)).await;
        assert_eq!(reply.status, 200);
        reply.json()
    };
    for kind in ["png", "jpeg", "webp"] {
        let mut body = good_body();
        body["extra"] = json!({"response_image_type": kind});
        let reply = generate(&server, &body).await.json();
        let picture = get(reply["images"][0]["image_url"].as_str().unwrap()).await;
        let found = verified(picture.body.to_vec()).await;
        assert_eq!(found["generated"], true, "{kind}: {found}");
        assert_eq!(
            found["digital_source_type"], "compositeWithTrainedAlgorithmicMedia",
            "{kind}"
        );
        assert_eq!(found["parameters"]["prompt"], body["prompt"], "{kind}");
    }
    let found = verified(pictures::bytes("small.png")).await;
    assert_eq!(
        found,
        json!({
            "generated": false, "digital_source_type": null, "parameters": null, "content_credentials": null,
            "watermark": false,
        })
    );
    assert_eq!(verified(b"nothing".to_vec()).await["generated"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watermark_outlives_the_file_where_the_operator_wants_one_and_is_not_in_what_no_network_has_made() {
    let server = TestServer::start_with(&["--compliance", "eu", "--models", &any_size()], &[]);
    let mut body = good_body();
    body["input_image"] = pictures::base64_of_size(320, 256).into();
    let picture = async |body: &Value| {
        let reply = generate(&server, body).await.json();
        get(reply["images"][0]["image_url"].as_str().unwrap()).await.body
    };
    let verified = async |file: Vec<u8>| {
        let address = format!("{}/v1/provenance/verify", server.base());
        send(http().post(address).body(file)).await.json()
    };
    let made = picture(&body).await;
    let mut saved = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut saved, 80);
    pictures::decode(&made).write_with_encoder(encoder).unwrap();
    let found = verified(saved).await;
    assert_eq!(found["digital_source_type"], Value::Null, "{found}");
    assert_eq!(
        (&found["watermark"], &found["generated"]),
        (&json!(true), &json!(true)),
        "{found}"
    );
    body["strength"] = json!(0);
    let given_back = picture(&body).await;
    let sent = pictures::grey(320, 256);
    assert_eq!(pictures::decode(&given_back), sent);
    assert_eq!(verified(given_back.to_vec()).await["watermark"], false);
    assert_eq!(verified(b"no picture".to_vec()).await["watermark"], Value::Null);
}
