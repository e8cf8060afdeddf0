//! The real binary on the emulated device: what it says of the device, what its pictures say, and what becomes of jobs when the
//! device is lost. A card has computed nothing of this yet.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, pictures_of, send};
use crate::support::server::TestServer;

const EMULATED: [&str; 2] = ["--device", "emulated"];

/// A picture of 64x64 to start from, so that the emulator has little to do.
fn body() -> Value {
    let small = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([4 * x as u8, 4 * y as u8, 128]));
    let mut file = std::io::Cursor::new(Vec::new());
    small.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let mut body = good_body();
    body["input_image"] = json!(base64::engine::general_purpose::STANDARD.encode(file.into_inner()));
    body
}

/// A folder with a catalogue whose checkpoint is the tiny one of the golden runs, under the demo's name.
fn home() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let golden = crate::support::tests_folder().join("golden/models/tiny");
    let golden = golden.canonicalize().unwrap();
    let model = format!(
        "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"{}\"\n",
        golden.display()
    );
    fs_err::write(folder.path().join("models.toml"), model).unwrap();
    folder
}

/// What a picture says of how it was made.
async fn parameters(server: &TestServer, picture: &bytes::Bytes) -> Value {
    let address = format!("{}/v1/provenance/verify", server.base());
    let reply = send(http().post(address).body(picture.clone())).await;
    reply.json()["parameters"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_gpu_says_so_and_its_pictures_do_too() {
    let home = home();
    let server = TestServer::start_in(home.path(), &EMULATED, &[]);
    let pictures = pictures_of(&server, &body()).await;
    let said = parameters(&server, &pictures[0]).await;
    assert_eq!(said["precision"], "f16", "{said}");
    let again = pictures_of(&server, &body()).await;
    assert_eq!(pictures, again, "the same request, the same bytes");

    let models = get(&format!("{}/v1/models", server.base())).await.json();
    let device = &models["device"];
    assert_eq!(
        (&device["name"], &device["precision"]),
        (&json!("emulated"), &json!("f16"))
    );
    let held = device["gpu"]["held_bytes"].as_u64().unwrap();
    assert!(
        held > 0 && held <= device["gpu"]["limit_bytes"].as_u64().unwrap(),
        "{device}"
    );
    let metrics = get(&format!("{}/metrics", server.base())).await;
    let page = String::from_utf8(metrics.body.to_vec()).unwrap();
    for name in [
        "pentimento_gpu_memory_used_bytes",
        "pentimento_gpu_memory_limit_bytes",
        "pentimento_gpu_plans",
    ] {
        assert!(
            page.contains(&format!("\n{name}{{device=\"0\"}} ")),
            "{name} in\n{page}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_stand_behind_one_queue_and_each_is_shown() {
    let home = home();
    let server = TestServer::start_in(home.path(), &["--device", "emulated:none,none"], &[]);
    let pictures = pictures_of(&server, &body()).await;
    assert_eq!(
        pictures,
        pictures_of(&server, &body()).await,
        "the same request, the same bytes"
    );
    let models = get(&format!("{}/v1/models", server.base())).await.json();
    let devices = models["devices"].as_array().unwrap();
    assert_eq!((devices.len(), &devices[0]), (2, &models["device"]));
    let held: Vec<u64> = devices
        .iter()
        .map(|device| device["gpu"]["held_bytes"].as_u64().unwrap())
        .collect();
    assert!(
        held[0] > 0 && held[1] == 0,
        "the second request followed its model: {devices:?}"
    );
    assert_eq!(devices[0]["resident_models"], json!(["demo"]));
    assert_eq!(devices[1]["resident_models"], json!([]));
    // What weights may take is the sum of both.
    let limit = |device: &Value| device["gpu"]["limit_bytes"].as_u64().unwrap();
    let weights = models["memory"]["weights"]["limit_bytes"].as_u64().unwrap();
    assert!(
        weights > limit(&devices[0]) && weights < limit(&devices[0]) + limit(&devices[1]),
        "{models}"
    );
    let metrics = get(&format!("{}/metrics", server.base())).await;
    let page = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "pentimento_device_jobs{device=\"1\"} 0",
        "pentimento_gpu_memory_used_bytes{device=\"1\"} 0",
        "pentimento_device_seconds_total{act=\"denoise\",device=\"1\"} 0.0",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} in\n{page}");
    }
    assert_eq!(
        page.matches("# TYPE pentimento_gpu_memory_used_bytes ").count(),
        1,
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_full_precision_both_devices_make_nearly_the_same_picture() {
    let pixels = |picture: &bytes::Bytes| image::load_from_memory(picture).unwrap().into_rgb8().into_raw();
    let homes = [home(), home()];
    let cpu = TestServer::start_in(homes[0].path(), &[], &[]);
    let gpu = TestServer::start_in(
        homes[1].path(),
        &["--device", "emulated", "--precision", "f32"],
        &[],
    );
    let (one, other) = (pictures_of(&cpu, &body()).await, pictures_of(&gpu, &body()).await);
    let said = parameters(&gpu, &other[0]).await;
    assert_eq!(said.get("precision"), None, "f32 is what nobody says: {said}");
    let (one, other) = (pixels(&one[0]), pixels(&other[0]));
    let furthest = one.iter().zip(&other).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest <= Some(2), "{furthest:?} of 255");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_does_not_fit_fails_by_name_and_the_server_goes_on() {
    let home = home();
    let server = TestServer::start_in(
        home.path(),
        &["--device", "emulated", "--gpu-memory", "256KiB"],
        &[],
    );
    let reply = generate(&server, &body()).await;
    assert!(
        reply.status.is_server_error() || reply.status.as_u16() == 429,
        "{}",
        reply.json()
    );
    let ready = get(&format!("{}/readyz", server.base())).await;
    assert_eq!(ready.status, 200);
    let text = reply.json().to_string();
    assert!(text.contains("memory") || text.contains("room"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_ends_the_process_and_its_jobs_go_on_after_the_next_start() {
    let home = home();
    let at_once = [("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")];
    // After the weights, in the middle of the work.
    let mut server = TestServer::start_in(home.path(), &["--device", "emulated:lost@3000"], &at_once);
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    let reply = send(http().post(address).json(&good_modelslab_body()))
        .await
        .json();
    assert_eq!(reply["status"], "processing", "{reply}");
    assert_eq!(server.wait(), Some(76), "{}", server.log());
    assert!(server.log().contains("the device is lost"), "{}", server.log());

    let server = TestServer::start_in(home.path(), &EMULATED, &at_once);
    let fetch = format!("{}/api/v1/enterprise/fetch/{}", server.base(), reply["id"]);
    loop {
        let reply = send(http().post(&fetch).json(&json!({"key": "any"})))
            .await
            .json();
        match reply["status"].as_str() {
            Some("processing") => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Some("success") => break,
            _ => panic!("it ended so: {reply}"),
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_named_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // No machine has so many.
    let (code, said) = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--device",
        "cuda:63",
        "--data",
        "none",
    ]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("cuda:63") && said.contains("--device auto"),
        "{said}"
    );
    let (code, said) = run(&["serve", "--device", "cpu", "--precision", "f16"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("precision") && said.contains("f16"), "{said}");
    for wrong in ["cuda:x", "cuda:0,0", "cuda:0,", "cuda:64", "tpu", "cpu:1"] {
        let (code, said) = run(&["serve", "--device", wrong]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("cuda"), "{said}");
    }
    let (code, said) = run(&["serve", "--gpu-memory", "0%"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("1% to 100%"), "{said}");
}
