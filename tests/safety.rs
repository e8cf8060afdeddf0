//! The safety checker from the caller's side: what is done with an unsafe picture, what is said about it, and who decides.
//!
//! A threshold of 0 takes every picture for unsafe, so that nobody has to look at a real one.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;
use crate::support::tests_folder;

const ALL_ARE_UNSAFE: (&str, &str) = ("PENTIMENTO_SAFETY_THRESHOLD_PERCENT", "0");

async fn modelslab(server: &TestServer, call: &str, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/{call}", server.base());
    send(http().post(address).json(body)).await.json()
}

async fn picture(reply: &Value) -> image::RgbImage {
    let address = reply["output"][0].as_str().or(reply["output"].as_str());
    let file = get(address.unwrap_or_else(|| panic!("no picture: {reply}"))).await;
    assert_eq!(file.status, 200);
    pictures::decode(&file.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_picture_leaves_the_server_in_none_of_the_four_types() {
    let server = TestServer::start_with(&[], &[ALL_ARE_UNSAFE]);
    let mut body = good_modelslab_body();
    let reply = modelslab(&server, "img2img", &body).await;
    assert_eq!(
        reply["nsfw_content_detected"], false,
        "nobody has looked: {reply}"
    );
    assert_eq!(reply["has_nsfw_concept"], json!([false]));
    let open = picture(&reply).await;
    body["safety_checker"] = json!("yes");
    for kind in ["sensitive_content_text", "blur", "pixelate", "black"] {
        body["safety_checker_type"] = json!(kind);
        let reply = modelslab(&server, "img2img", &body).await;
        assert_eq!(reply["nsfw_content_detected"], true, "{reply}");
        assert_eq!(reply["has_nsfw_concept"], json!([true]));
        assert_eq!(reply["meta"]["safety_checker"], "yes");
        assert_eq!(reply["meta"]["safety_checker_type"], kind);
        assert_eq!(reply.get("warning"), None, "{reply}");
        let hidden = picture(&reply).await;
        assert_eq!(hidden.dimensions(), open.dimensions());
        assert!(pictures::mean_difference(&hidden, &open) > 4.0, "{kind}");
        if kind == "black" {
            assert!(hidden.as_raw().iter().all(|value| *value == 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harmless_picture_is_looked_at_and_handed_out_as_it_is() {
    let server = TestServer::start();
    let mut body = good_modelslab_body();
    let open = picture(&modelslab(&server, "img2img", &body).await).await;
    body["safety_checker"] = json!("yes");
    let reply = modelslab(&server, "img2img", &body).await;
    assert_eq!(reply["nsfw_content_detected"], false, "{reply}");
    assert!(picture(&reply).await == open);
}

#[tokio::test(flavor = "multi_thread")]
async fn novita_is_told_what_was_found_and_gets_the_picture() {
    let server = TestServer::start_with(&[], &[ALL_ARE_UNSAFE]);
    let mut body = good_body();
    let reply = generate(&server, &body).await.json();
    assert_eq!(reply["images"][0].get("nsfw_detection_result"), None, "{reply}");
    let open = get(reply["images"][0]["image_url"].as_str().unwrap()).await;
    body["extra"] = json!({"enable_nsfw_detection": true, "nsfw_detection_level": 2});
    let reply = generate(&server, &body).await.json();
    let result = &reply["images"][0]["nsfw_detection_result"];
    assert_eq!(result["valid"], true, "{reply}");
    let confidence = result["confidence"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&confidence), "{reply}");
    let kept = get(reply["images"][0]["image_url"].as_str().unwrap()).await;
    assert!(pictures::decode(&kept.body) == pictures::decode(&open.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_has_the_last_word() {
    let required = [ALL_ARE_UNSAFE, ("PENTIMENTO_SAFETY_CHECKER", "required")];
    let server = TestServer::start_with(&[], &required);
    let reply = modelslab(&server, "img2img", &good_modelslab_body()).await;
    assert_eq!(reply["nsfw_content_detected"], true, "{reply}");
    assert_eq!(reply["meta"]["safety_checker"], "yes");
    let warning = reply["warning"].as_str().unwrap_or_default();
    assert!(warning.contains("looks at every image"), "{reply}");
    let mut body = good_body();
    body["extra"] = json!({"enable_nsfw_detection": true});
    let reply = generate(&server, &body).await.json();
    let hidden = get(reply["images"][0]["image_url"].as_str().unwrap()).await;
    let hidden = pictures::decode(&hidden.body);
    assert_eq!(hidden.get_pixel(0, 0).0, [64, 64, 64], "the notice: {reply}");

    let server = TestServer::start_with(&[], &[ALL_ARE_UNSAFE, ("PENTIMENTO_SAFETY_CHECKER", "off")]);
    let mut body = good_modelslab_body();
    body["safety_checker"] = json!("yes");
    let reply = modelslab(&server, "img2img", &body).await;
    assert_eq!(reply["nsfw_content_detected"], false, "{reply}");
    assert_eq!(reply["meta"]["safety_checker"], "no");
    let warning = reply["warning"].as_str().unwrap_or_default();
    assert!(warning.contains("switched off"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_checked_without_a_job() {
    let server = TestServer::start();
    let file = pictures::base64("small.png");
    let reply = modelslab(
        &server,
        "nsfw_image_check",
        &json!({"key": "k", "init_image": file}),
    )
    .await;
    assert_eq!(reply["has_nsfw_concept"], json!([false]), "{reply}");
    assert_eq!(reply["images"], "base64");
    let strict = json!({"init_image": pictures::base64("small.png"), "threshold": "0"});
    let reply = modelslab(&server, "nsfw_image_check", &strict).await;
    assert_eq!(reply["has_nsfw_concept"], json!([true]), "{reply}");
    for (body, field) in [
        (json!({}), "init_image"),
        (json!({"init_image": "AAAA"}), "init_image"),
        (json!({"init_image": "/etc/passwd"}), "init_image"),
        (
            json!({"init_image": strict["init_image"], "threshold": 2}),
            "threshold",
        ),
    ] {
        let reply = modelslab(&server, "nsfw_image_check", &body).await;
        assert_eq!(reply["status"], "error", "{reply}");
        assert!(reply["message"][field][0].is_string(), "{field}: {reply}");
    }
}

/// A copy of the golden reference checker whose concepts' thresholds are `threshold`.
fn reference_checker(folder: &Path, threshold: f32) {
    let golden = tests_folder().join("golden/safety_checker/model");
    fs_err::create_dir_all(folder).unwrap();
    fs_err::copy(golden.join("config.json"), folder.join("config.json")).unwrap();
    let mut file = fs_err::read(golden.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let place = &tensors["concept_embeds_weights"]["data_offsets"];
    let [from, to] = [0, 1].map(|end| 8 + header + place[end].as_u64().unwrap() as usize);
    for value in file[from..to].chunks_exact_mut(4) {
        value.copy_from_slice(&threshold.to_le_bytes());
    }
    fs_err::write(folder.join("model.safetensors"), file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_checker_judges_where_the_operator_names_it() {
    let folder = TempDir::new().unwrap();
    let mut catalogue =
        String::from("[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"embedded:demo\"\n");
    // No cosine is above one.
    for (name, threshold) in [("never", 2.0), ("always", -2.0)] {
        reference_checker(&folder.path().join(name), threshold);
        catalogue +=
            &format!("[[model]]\nname = \"{name}\"\nkind = \"safety_checker\"\nsource = \"{name}\"\n");
    }
    let file = folder.path().join("models.toml");
    fs_err::write(&file, catalogue).unwrap();
    let flags = ["--models", file.to_str().unwrap()];
    for (name, is_unsafe) in [("never", false), ("always", true)] {
        // The threshold of the small checker says nothing here.
        let server = TestServer::start_with(&flags, &[ALL_ARE_UNSAFE, ("PENTIMENTO_SAFETY_MODEL", name)]);
        let mut body = good_modelslab_body();
        body["safety_checker"] = json!("yes");
        body["safety_checker_type"] = json!("black");
        let reply = modelslab(&server, "img2img", &body).await;
        assert_eq!(reply["has_nsfw_concept"], json!([is_unsafe]), "{reply}");
        let is_black = picture(&reply).await.as_raw().iter().all(|value| *value == 0);
        assert_eq!(is_black, is_unsafe);
        let mut body = good_body();
        body["extra"] = json!({"enable_nsfw_detection": true});
        let reply = generate(&server, &body).await.json();
        let result = &reply["images"][0]["nsfw_detection_result"];
        let confidence = f64::from(u8::from(is_unsafe));
        assert_eq!(
            *result,
            json!({"valid": is_unsafe, "confidence": confidence}),
            "{reply}"
        );
        let check = json!({"init_image": pictures::base64("small.png"), "threshold": 0.5});
        let reply = modelslab(&server, "nsfw_image_check", &check).await;
        assert_eq!(reply["has_nsfw_concept"], json!([is_unsafe]), "{reply}");
        assert_eq!(reply["score"], Value::Null);
        assert!(
            reply["warning"]
                .as_str()
                .unwrap_or_default()
                .contains("threshold"),
            "{reply}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_enlarged_without_a_job() {
    let server = TestServer::start();
    let small = pictures::decode(&pictures::bytes("small.png"));
    let mut body = json!({"key": "k", "url": pictures::base64("small.png")});
    for (scale, times) in [(Value::Null, 4), (json!(1), 1), (json!("2"), 2), (json!(3), 3)] {
        body["scale"] = scale;
        let reply = modelslab(&server, "super_resolution", &body).await;
        assert_eq!(reply["status"], "success", "{reply}");
        assert!(reply["output"].is_string() && reply["id"].is_u64(), "{reply}");
        assert_eq!(reply.get("warning"), None, "{reply}");
        let enlarged = picture(&reply).await;
        let wanted = (small.width() * times, small.height() * times);
        assert_eq!(enlarged.dimensions(), wanted);
        // Made small again, it is nearly what it was.
        let again = image::imageops::thumbnail(&enlarged, small.width(), small.height());
        assert!(pictures::mean_difference(&again, &small) < 6.0, "{times}");
    }
    body["face_enhance"] = json!(true);
    body["webhook"] = json!("https://example.com/hook");
    let reply = modelslab(&server, "super_resolution", &body).await;
    let warning = reply["warning"].as_str().unwrap_or_default();
    assert!(warning.contains("face_enhance, webhook"), "{reply}");
    for (body, field) in [
        (json!({}), "url"),
        (json!({"url": "AAAA"}), "url"),
        (json!({"url": body["url"], "scale": 5}), "scale"),
        (json!({"url": body["url"], "scale": "big"}), "scale"),
        (
            json!({"url": body["url"], "face_enhance": "maybe"}),
            "face_enhance",
        ),
    ] {
        let reply = modelslab(&server, "super_resolution", &body).await;
        assert_eq!(reply["status"], "error", "{reply}");
        assert!(reply["message"][field][0].is_string(), "{field}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_catalogue_enlarges() {
    let folder = TempDir::new().unwrap();
    let golden = tests_folder().join("golden");
    let mut catalogue = String::new();
    for (name, file) in [
        ("RealESRGAN_x4plus", "upscalers/x4.pth"),
        ("twice", "upscalers/x2.pth"),
        ("wrong", "lora/kohya.safetensors"),
    ] {
        let source = golden.join(file);
        catalogue += &format!(
            "[[model]]\nname = \"{name}\"\nkind = \"upscaler\"\nsource = \"{}\"\n",
            source.display()
        );
    }
    let file = folder.path().join("models.toml");
    fs_err::write(&file, catalogue).unwrap();
    let server = TestServer::start_with(&["--models", file.to_str().unwrap()], &[]);
    let small = pictures::decode(&pictures::bytes("small.png"));
    let asked = |model: &str, scale: u32| json!({"url": pictures::base64("small.png"), "model_id": model, "scale": scale});
    let mut seen = Vec::new();
    for (model, scale) in [
        ("RealESRGAN_x4plus", 4),
        ("twice", 2),
        ("RealESRGAN_x4plus", 2),
        ("twice", 4),
    ] {
        let reply = modelslab(&server, "super_resolution", &asked(model, scale)).await;
        assert_eq!(reply["status"], "success", "{reply}");
        assert_eq!(reply.get("warning"), None, "{reply}");
        let enlarged = picture(&reply).await;
        assert_eq!(
            enlarged.dimensions(),
            (small.width() * scale, small.height() * scale),
            "{model}"
        );
        seen.push(enlarged);
    }
    assert!(seen[1] != seen[2], "each model has its own picture");
    let reply = modelslab(&server, "super_resolution", &asked("wrong", 4)).await;
    assert!(reply["message"]["model_id"][0].is_string(), "{reply}");
    let reply = modelslab(&server, "super_resolution", &asked("RealESRGAN_x4pluss", 4)).await;
    let message = reply["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("model_id") && message.contains("did you mean RealESRGAN_x4plus?"),
        "{reply}"
    );
}
