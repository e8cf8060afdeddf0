//! ModelsLab's dialect: every scenario of `tests/scenarios/modelslab` against the real binary, the addresses that it must
//! not reach, and what a mask keeps.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::client::{get, good_modelslab_body, http, send};
use crate::support::server::TestServer;
use crate::support::{picture_server, pictures, suite};

/// The demo model under the name that the vendor's examples use.
pub(crate) const CATALOGUE: &str = r#"
[[model]]
name = "demo"
aliases = ["realistic-vision-51"]
kind = "checkpoint"
source = "embedded:demo"
base = "sd15"
"#;

async fn call(server: &TestServer, path: &str, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/{path}", server.base());
    send(http().post(address).json(body)).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_is_answered_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = folder.path().join("models.toml");
    fs_err::write(&catalogue, CATALOGUE).unwrap();
    let served = picture_server::start().await;
    let settings = [
        ("PENTIMENTO_ALLOW_PRIVATE_URLS", "true"),
        ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "600"),
        ("PENTIMENTO_CORS_ORIGINS", "*"),
    ];
    let flags = ["--models", catalogue.to_str().unwrap()];
    let mut server = TestServer::start_with(&flags, &settings).with_served(served);
    suite::run(&mut server, "modelslab", 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_inside_are_not_reached_and_sound_alike() {
    let served = picture_server::start().await;
    let server = TestServer::start();
    let port = served.port();
    let mut texts = Vec::new();
    for address in [
        format!("http://127.0.0.1:{port}/pictures/small.png"),
        // Nothing listens there: the same words.
        "http://127.0.0.1:9/x.png".to_owned(),
        "http://127.0.0.1:47331/x.png".to_owned(),
        format!("http://localhost:{port}/pictures/small.png"),
        format!("http://127.1:{port}/pictures/small.png"),
        format!("http://2130706433:{port}/pictures/small.png"),
        format!("http://0x7f.0.0.1:{port}/pictures/small.png"),
        format!("http://[::1]:{port}/pictures/small.png"),
        format!("http://[::ffff:127.0.0.1]:{port}/pictures/small.png"),
        "http://0.0.0.0:8080/".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://metadata.google.internal/computeMetadata/v1/".to_owned(),
        "http://10.0.0.1/a.png".to_owned(),
        "http://172.16.0.1/a.png".to_owned(),
        "http://192.168.1.1/a.png".to_owned(),
        "http://100.64.0.1/a.png".to_owned(),
        "http://[fd00::1]/a.png".to_owned(),
        "http://[fe80::1]/a.png".to_owned(),
        "http://[64:ff9b::7f00:1]/a.png".to_owned(),
        "https://127.0.0.1/a.png".to_owned(),
        "http://user@127.0.0.1/a.png".to_owned(),
        "http://127.0.0.1:22/a.png".to_owned(),
        "http:///a.png".to_owned(),
    ] {
        for field in ["init_image", "mask_image"] {
            let mut body = good_modelslab_body();
            body["mask_image"] = body["init_image"].clone();
            body[field] = json!(address);
            let reply = call(&server, "inpaint", &body).await;
            let message = reply["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!(reply["status"], "error", "{address}: {reply}");
            let start = format!("Unable to fetch image from provided URL ({field})");
            assert!(message.starts_with(&start), "{address}: {reply}");
            if address.starts_with("http://127.0.0.1:")
                && !address.contains(":22/")
                && !address.contains(":9/")
            {
                texts.push(message.replace(field, ""));
            }
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "an open port sounds like a closed one: {texts:?}");
    let ready = get(&format!("{}/readyz", server.base())).await.json();
    assert_eq!(ready["jobs"]["queued"], 0, "{ready}");
    assert_eq!(
        call(&server, "img2img", &good_modelslab_body()).await["status"],
        "success"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mask_keeps_comes_back_pixel_for_pixel() {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "600")]);
    let (scene, mask) = ("images/scene.png", "images/mask.png");
    let mut body = good_modelslab_body();
    for (field, value) in [
        ("init_image", json!(pictures::base64(scene))),
        ("mask_image", json!(pictures::base64(mask))),
        ("width", json!(128)),
        ("height", json!(128)),
        ("num_inference_steps", json!(4)),
        ("strength", json!(1.0)),
        ("scheduler", json!("DDIMScheduler")),
    ] {
        body[field] = value;
    }
    let reply = call(&server, "inpaint", &body).await;
    assert_eq!(reply["status"], "success", "{reply}");
    assert_eq!(reply["meta"]["mask_image"], "base64");
    let found = get(reply["output"][0].as_str().unwrap()).await;
    let (found, scene) = (
        pictures::decode(&found.body),
        pictures::decode(&pictures::bytes(scene)),
    );
    let mask = pictures::decode(&pictures::bytes(mask));
    let (mut kept, mut changed) = (0, 0);
    for (x, y, pixel) in mask.enumerate_pixels() {
        let same = found.get_pixel(x, y) == scene.get_pixel(x, y);
        if pixel.0[0] < 128 {
            assert!(same, "the pixel {x}, {y} is not kept");
            kept += 1;
        } else if !same {
            changed += 1;
        }
    }
    assert!(kept > 1000 && changed > 300, "{kept} kept, {changed} changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_mask_gives_the_picture_back_without_a_watermark() {
    let server = TestServer::start_with(&["--compliance", "eu"], &[]);
    let photo = pictures::decode(&pictures::bytes("images/photo.png"));
    let (width, height) = photo.dimensions();
    let mut black = Vec::new();
    image::RgbImage::new(width, height)
        .write_to(&mut std::io::Cursor::new(&mut black), image::ImageFormat::Png)
        .unwrap();
    let mut body = good_modelslab_body();
    body["init_image"] = json!(pictures::base64("images/photo.png"));
    body["mask_image"] = json!(BASE64_STANDARD.encode(black));
    (body["width"], body["height"]) = (json!(width), json!(height));
    body["strength"] = json!(0.7);
    let reply = call(&server, "inpaint", &body).await;
    assert_eq!(reply["status"], "success", "{reply}");
    let warning = reply["warning"].as_str().unwrap();
    assert!(warning.contains("given back as it came"), "{warning}");
    assert_eq!(reply["meta"]["strength"], body["strength"], "{reply}");
    let found = get(reply["output"][0].as_str().unwrap()).await;
    assert_eq!(pictures::decode(&found.body), photo);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scheduler_makes_a_picture() {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "600")]);
    let list = call(&server, "schedulers_list", &json!({})).await;
    let names = list["schedulers"].as_array().unwrap().clone();
    assert_eq!(names.len(), 19);
    for name in names {
        let mut body = good_modelslab_body();
        body["scheduler"] = name.clone();
        body["num_inference_steps"] = json!(3);
        let reply = call(&server, "img2img", &body).await;
        assert_eq!(reply["status"], "success", "{name}: {reply}");
        assert_eq!(reply["meta"]["scheduler"], name);
    }
}
