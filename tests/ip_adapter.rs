//! IP-Adapters through ModelsLab's dialect and the command line: an image beside the prompt changes the picture, scale 0 does
//! not, and what is wrong is told by its field. The networks are tiny and real.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lora::{modelslab, picture};
use crate::support::pictures;
use crate::support::server::TestServer;

/// A catalogue of a tiny checkpoint, IP-Adapters for it and for others, and an encoder with an entry of its own.
fn catalogue() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for the catalogue");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let golden = golden.display();
    let mut catalogue = String::new();
    for (name, kind, source, more) in [
        ("tiny", "checkpoint", "models/tiny", ""),
        (
            "ip-adapter_sd15",
            "ip_adapter",
            "ip_adapter/ip-adapter_sd15.safetensors",
            "",
        ),
        (
            "ip-adapter-plus_sd15",
            "ip_adapter",
            "ip_adapter/ip-adapter-plus_sd15.bin",
            "image_encoder = \"encoder\"\n",
        ),
        ("encoder", "image_encoder", "ip_adapter/image_encoder", ""),
        (
            "ip-adapter_sdxl",
            "ip_adapter",
            "ip_adapter/ip-adapter_sdxl.bin",
            "",
        ),
        ("no-adapter", "ip_adapter", "lora/kohya.safetensors", ""),
        ("gone", "ip_adapter", "ip_adapter/nowhere.bin", ""),
    ] {
        let source = format!("source = \"{golden}/{source}\"\n");
        let entry = format!("[[model]]\nname = \"{name}\"\nkind = \"{kind}\"\n{source}{more}");
        catalogue.write_str(&entry).expect("a text grows");
    }
    fs_err::write(folder.path().join("models.toml"), catalogue).expect("the folder can be written");
    folder
}

fn server() -> (TestServer, TempDir) {
    let folder = catalogue();
    let file = folder.path().join("models.toml");
    let server = TestServer::start_with(&["--models", file.to_str().expect("a plain path")], &[]);
    (server, folder)
}

/// A request for the tiny checkpoint.
async fn asked(server: &TestServer, change: Value) -> Value {
    let mut body = json!({"model_id": "tiny", "width": 64, "height": 64, "seed": 5, "guidance_scale": 3, "strength": 0.9,
                          "num_inference_steps": 6, "scheduler": "DDIMScheduler", "safety_checker": "no", "enhance_prompt": "no"});
    for (name, value) in change.as_object().expect("fields") {
        body[name] = value.clone();
    }
    modelslab(server, body).await
}

async fn pixels(server: &TestServer, change: Value) -> Vec<u8> {
    let reply = asked(server, change.clone()).await;
    assert_eq!(reply["status"], "success", "{change}: {reply}");
    assert_eq!(reply.get("warning"), None, "{reply}");
    picture(&reply["output"][0]).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_beside_the_prompt_changes_the_picture() {
    let (server, _folder) = server();
    let photo = pictures::base64("images/photo.png");
    let plain = pixels(&server, json!({})).await;
    let with = |adapter: &str, scale: f64| json!({"ip_adapter_id": adapter, "ip_adapter_image": photo, "ip_adapter_scale": scale});
    let mut seen = vec![plain.clone()];
    for adapter in ["ip-adapter_sd15", "ip-adapter-plus_sd15"] {
        assert_eq!(
            pixels(&server, with(adapter, 0.0)).await,
            plain,
            "{adapter} at scale 0"
        );
        for scale in [0.5, 1.0] {
            let found = pixels(&server, with(adapter, scale)).await;
            assert!(!seen.contains(&found), "{adapter} at scale {scale}");
            seen.push(found);
        }
    }
    // Full scale is the default, and a data URI is the same image.
    let unsaid = json!({"ip_adapter_id": "ip-adapter_sd15", "ip_adapter_image": format!("data:image/png;base64,{photo}")});
    assert_eq!(pixels(&server, unsaid).await, seen[2]);
    let reply = asked(&server, with("ip-adapter_sd15", 0.5)).await;
    assert_eq!(reply["meta"]["ip_adapter_id"], "ip-adapter_sd15", "{reply}");
    assert_eq!(reply["meta"]["ip_adapter_scale"], 0.5, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_by_its_field() {
    let (server, _folder) = server();
    let photo = pictures::base64("images/photo.png");
    for (change, field, reason) in [
        (
            json!({"ip_adapter_id": "ip-adapter_sd-15", "ip_adapter_image": photo}),
            "ip_adapter_id",
            "ip-adapter_sd15",
        ),
        (
            json!({"ip_adapter_id": "ip-adapter_sdxl", "ip_adapter_image": photo}),
            "ip_adapter_id",
            "text states of 56 numbers",
        ),
        (
            json!({"ip_adapter_id": "no-adapter", "ip_adapter_image": photo}),
            "ip_adapter_id",
            "without a tensor of an IP-Adapter",
        ),
        (
            json!({"ip_adapter_id": "gone", "ip_adapter_image": photo}),
            "ip_adapter_id",
            "cannot be used now",
        ),
        (
            json!({"ip_adapter_id": "ip-adapter_sd15"}),
            "ip_adapter_image",
            "is required",
        ),
        (json!({"ip_adapter_image": photo}), "ip_adapter_id", "is required"),
        (
            json!({"ip_adapter_id": "ip-adapter_sd15", "ip_adapter_image": "AAAA"}),
            "ip_adapter_image",
            "",
        ),
        (
            json!({"ip_adapter_id": "ip-adapter_sd15", "ip_adapter_image": photo, "ip_adapter_scale": 1.1}),
            "ip_adapter_scale",
            "1",
        ),
    ] {
        let reply = asked(&server, change.clone()).await;
        assert_eq!(reply["status"], "error", "{field}: {reply}");
        let message = reply["message"].to_string();
        assert!(
            message.contains(field) && message.contains(reason),
            "{field} {reason}: {reply}"
        );
        assert!(!message.contains("golden"), "no path is told: {reply}");
    }
}

#[test]
fn the_command_line_shows_an_image_too() {
    let folder = catalogue();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images/photo.png");
    let photo = photo.to_str().expect("a plain path");
    let run = |out: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pentimento"));
        command.args([
            "generate",
            "--models",
            "models.toml",
            "--model",
            "tiny",
            "--image",
            photo,
            "--prompt",
            "a boat",
        ]);
        command
            .args(["--seed", "7", "--steps", "4", "--no-preview", "--out", out])
            .args(more);
        command
            .current_dir(folder.path())
            .output()
            .expect("the program runs")
    };
    let shown = ["--ip-adapter", "ip-adapter_sd15", "--ip-adapter-image", photo];
    for (out, more) in [("plain.png", &[][..]), ("shown.png", &shown)] {
        let output = run(out, more);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let read = |name: &str| {
        let file = fs_err::read(folder.path().join(name)).expect("the picture is there");
        image::load_from_memory(&file)
            .expect("an image")
            .to_rgb8()
            .into_raw()
    };
    assert_ne!(read("plain.png"), read("shown.png"));
    let alone = run("x.png", &shown[..2]);
    assert!(!alone.status.success());
    let message = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(message.contains("--ip-adapter-image"), "{message}");
}
