//! LoRAs through both dialects: they change the image, leave the next one alone, and are refused or explained by name.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{get, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

/// A layer of the demo model and its width.
const LAYER: &str = "unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0";
const WIDTH: usize = 160;

/// A safetensors file of f32 tensors whose numbers run on.
pub(crate) fn write(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let (mut header, mut numbers) = (String::from("{"), Vec::new());
    for (name, shape) in tensors {
        let (start, count) = (numbers.len(), shape.iter().product::<usize>());
        numbers.extend(
            (start / 4..start / 4 + count).flat_map(|at| (((at as f32) * 0.7).sin() * 0.3).to_le_bytes()),
        );
        let comma = if start == 0 { "" } else { "," };
        let end = numbers.len();
        write!(
            header,
            "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        )
        .expect("a text grows");
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(numbers);
    fs_err::write(path, file).expect("the folder can be written");
}

/// A LoRA of rank 2 for one layer, and of some more names that mean nothing.
fn write_lora(path: &Path, width: usize, strangers: &[&str]) {
    let mut tensors = vec![
        (format!("lora_{LAYER}.lora_down.weight"), vec![2, width]),
        (format!("lora_{LAYER}.lora_up.weight"), vec![width, 2]),
    ];
    tensors.extend(strangers.iter().map(|name| ((*name).to_owned(), vec![3])));
    write(path, &tensors);
}

/// A catalogue in this folder of the demo model and the LoRA `style`; its path.
pub(crate) fn catalogue_with_a_lora(folder: &Path) -> String {
    write_lora(&folder.join("style.safetensors"), WIDTH, &[]);
    let catalogue = "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"embedded:demo\"\nbase = \"sd15\"\n\
                     [[model]]\nname = \"style\"\nkind = \"lora\"\nsource = \"style.safetensors\"\n";
    let file = folder.join("models.toml");
    fs_err::write(&file, catalogue).expect("the folder can be written");
    file.to_str().expect("a plain path").to_owned()
}

/// A server with the demo model and LoRAs; `more` is added to the catalogue.
pub(crate) fn server(more: &str) -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().expect("a folder for the LoRAs");
    write_lora(
        &folder.path().join("style.safetensors"),
        WIDTH,
        &["lora_unet_nowhere.alpha"],
    );
    write_lora(&folder.path().join("wide.safetensors"), 1280, &[]);
    let mut catalogue = String::from(
        "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"embedded:demo\"\nbase = \"sd15\"\n",
    );
    for name in ["style", "wide"] {
        write!(
            catalogue,
            "[[model]]\nname = \"{name}\"\nkind = \"lora\"\nsource = \"{name}.safetensors\"\n"
        )
        .expect("a text grows");
    }
    catalogue.push_str(more);
    let file = folder.path().join("models.toml");
    fs_err::write(&file, catalogue).expect("the folder can be written");
    let server = TestServer::start_with(&["--models", file.to_str().expect("a plain path")], &[]);
    (server, folder)
}

pub(crate) async fn novita(server: &TestServer, change: Value) -> (u16, Value) {
    let mut body = good_body();
    for (name, value) in change.as_object().expect("fields") {
        body[name] = value.clone();
    }
    let address = format!("{}/v3/lcm-img2img", server.base());
    let reply = send(http().post(address).json(&body)).await;
    (reply.status.as_u16(), reply.json())
}

pub(crate) async fn modelslab(server: &TestServer, change: Value) -> Value {
    let mut body = good_modelslab_body();
    for (name, value) in change.as_object().expect("fields") {
        body[name] = value.clone();
    }
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    send(http().post(address).json(&body)).await.json()
}

/// The pixels behind a link, and the whole file.
pub(crate) async fn picture(link: &Value) -> (Vec<u8>, Vec<u8>) {
    let file = get(link.as_str().expect("a link")).await.body.to_vec();
    let pixels = image::load_from_memory(&file)
        .expect("an image")
        .to_rgb8()
        .into_raw();
    (pixels, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lora_changes_its_own_image_and_no_other() {
    let (server, _folder) = server("");
    let run = async |loras: Value| {
        let (status, reply) = novita(&server, json!({"loras": loras})).await;
        assert_eq!(status, 200, "{reply}");
        let (pixels, file) = picture(&reply["images"][0]["image_url"]).await;
        (
            pixels,
            file,
            reply["warning"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (plain, _, about_plain) = run(json!([])).await;
    assert!(about_plain.contains("no LCM-LoRA"), "{about_plain}");
    assert!(!about_plain.contains("style"), "{about_plain}");
    let (styled, file, warning) = run(json!([{"model_name": "style", "strength": 1.5}])).await;
    assert_ne!(styled, plain);
    assert!(
        warning.contains("1 of the tensors of the LoRA style") && warning.contains("lora_unet_nowhere.alpha"),
        "{warning}"
    );
    let parameters = String::from_utf8_lossy(&file);
    assert!(
        parameters.contains("\"style\"") && parameters.contains("1.5"),
        "recorded in the image"
    );
    let (weaker, ..) = run(json!([{"model_name": "style.safetensors", "strength": -1.5}])).await;
    assert_ne!(weaker, styled);
    let (without, _, none) = run(json!([{"model_name": "style", "strength": 0}])).await;
    assert_eq!(without, plain);
    assert_eq!(none, about_plain);
    assert_eq!(run(json!([])).await.0, plain, "nothing is left of the LoRA");
    let (again, ..) = run(json!([{"model_name": "style", "strength": 1.5}])).await;
    assert_eq!(again, styled);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialects_apply_and_refuse_by_their_own_fields() {
    let (server, _folder) = server("");
    let (status, reply) = novita(&server, json!({"loras": [{"model_name": "wide", "strength": 1}]})).await;
    assert_eq!(
        (status, &reply["metadata"]["field"]),
        (400, &json!("loras")),
        "{reply}"
    );
    let message = reply["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("wide") && message.contains("`demo`"),
        "{message}"
    );
    assert!(!message.contains("/"), "no path: {message}");
    let refused = modelslab(&server, json!({"lora_model": "style,wide"})).await;
    assert_eq!(refused["status"], "error", "{refused}");
    assert!(
        refused["message"]["lora_model"][0]
            .as_str()
            .unwrap_or_default()
            .contains("wide"),
        "{refused}"
    );

    // At one step and the default strength nothing is evaluated at all.
    let (steps, strength) = (4, 0.9);
    let plain = json!({"num_inference_steps": steps, "strength": strength});
    let plain = modelslab(&server, plain).await;
    let styled = json!({
        "num_inference_steps": steps,
        "strength": strength,
        "lora_model": "style",
        "lora_strength": "1.5",
    });
    let styled = modelslab(&server, styled).await;
    assert_eq!(styled["status"], "success", "{styled}");
    assert_eq!(styled["meta"]["lora"], "style");
    assert!(
        styled["warning"].as_str().unwrap_or_default().contains("style"),
        "{styled}"
    );
    let (with, without) = (
        picture(&styled["output"][0]).await,
        picture(&plain["output"][0]).await,
    );
    assert_ne!(with.0, without.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lcm_lora_is_added_on_its_route_alone_and_not_counted() {
    let role = "[[model]]\nname = \"lcm\"\nkind = \"lora\"\nsource = \"style.safetensors\"\nrole = \"lcm\"\nbase = \"sd15\"\n";
    let (with_lcm, _folder) = server(role);
    let (plain, _other) = server("");
    let run = async |server: &TestServer| {
        let (status, reply) = novita(server, json!({})).await;
        assert_eq!(status, 200, "{reply}");
        let warning = reply["warning"].as_str().unwrap_or_default().to_owned();
        (picture(&reply["images"][0]["image_url"]).await.0, warning)
    };
    let (distilled, warning) = run(&with_lcm).await;
    assert!(!warning.contains("no LCM-LoRA"), "{warning}");
    assert_ne!(distilled, run(&plain).await.0);
    let by_hand = novita(&plain, json!({"loras": [{"model_name": "style", "strength": 1}]}))
        .await
        .1;
    let by_hand = picture(&by_hand["images"][0]["image_url"]).await.0;
    let differing = by_hand
        .iter()
        .zip(&distilled)
        .filter(|(a, b)| a.abs_diff(**b) > 2)
        .count();
    assert_eq!(differing, 0, "merged or beside, it is the same change");
    // The other dialect has no such route.
    let one = modelslab(&with_lcm, json!({})).await;
    let two = modelslab(&plain, json!({})).await;
    assert_eq!(
        picture(&one["output"][0]).await.0,
        picture(&two["output"][0]).await.0
    );
}
