//! The real binary in bfloat16 and with the products of AMX, each by its portable reference, on any machine.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::client::{get, good_body, http, pictures_of, send};
use crate::support::server::TestServer;

/// A picture of 64x64 to start from, so that there is little to do.
fn body() -> Value {
    let small = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([4 * x as u8, 4 * y as u8, 128]));
    let mut file = std::io::Cursor::new(Vec::new());
    small.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let mut body = good_body();
    body["input_image"] = json!(base64::engine::general_purpose::STANDARD.encode(file.into_inner()));
    body
}

/// The picture of a server with these settings, and the precision that its parameters and the server say.
async fn picture(settings: &[&str]) -> (bytes::Bytes, Value, Value) {
    let home = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(home.path(), settings, &[]);
    let picture = pictures_of(&server, &body()).await.remove(0);
    let address = format!("{}/v1/provenance/verify", server.base());
    let said = send(http().post(address).body(picture.clone())).await.json();
    let models = get(&format!("{}/v1/models", server.base())).await.json();
    (
        picture,
        said["parameters"]["precision"].clone(),
        models["device"]["precision"].clone(),
    )
}

/// The largest difference of two pictures, of 255.
fn furthest(one: &bytes::Bytes, other: &bytes::Bytes) -> u8 {
    let pixels = |picture: &bytes::Bytes| image::load_from_memory(picture).unwrap().into_rgb8().into_raw();
    let (one, other) = (pixels(one), pixels(other));
    assert_eq!(one.len(), other.len());
    one.iter().zip(&other).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_in_bf16_says_so_and_is_near_the_one_in_f32() {
    let (plain, said, device) = picture(&[]).await;
    assert_eq!(
        (said, device),
        (Value::Null, json!("f32")),
        "f32 is what nobody says"
    );
    let set = ["--isa", "avx512-bf16-emulated"];
    let (rounded, said, device) = picture(&[&set[..], &["--precision", "bf16"]].concat()).await;
    assert_eq!((said, device), (json!("bf16"), json!("bf16")));
    let difference = furthest(&plain, &rounded);
    assert!((1..=16).contains(&difference), "{difference} of 255");
}

#[tokio::test(flavor = "multi_thread")]
async fn split_products_make_the_picture_of_f32() {
    let (plain, ..) = picture(&[]).await;
    let (split, said, device) = picture(&["--isa", "amx-emulated"]).await;
    assert_eq!((said, device), (Value::Null, json!("f32")));
    let difference = furthest(&plain, &split);
    assert!(difference <= 2, "{difference} of 255");
}

#[test]
fn bf16_is_refused_where_nothing_multiplies_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for (more, named) in [
        (["--isa", "portable"], "AVX512-BF16"),
        (["--device", "cuda"], "--device cpu"),
    ] {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--precision", "bf16"];
        let (code, said) = run(&[&serve[..], &more].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("precision is \"bf16\"") && said.contains(named),
            "{said}"
        );
    }
}

/// Two names for the demo model, of which `rounded` asks for bf16.
const TWO_ENTRIES: &str = r#"
[[model]]
name   = "demo"
kind   = "checkpoint"
source = "embedded:demo"
role   = "lcm"
[[model]]
name      = "rounded"
kind      = "checkpoint"
source    = "embedded:demo"
role      = "lcm"
precision = "bf16"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn one_model_in_bf16_leaves_another_of_the_same_files_in_f32() {
    let set = ["--isa", "avx512-bf16-emulated"];
    let (in_f32, ..) = picture(&set).await;
    let (in_bf16, ..) = picture(&[&set[..], &["--precision", "bf16"]].concat()).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("two.toml");
    fs_err::write(&file, TWO_ENTRIES).unwrap();
    let models = ["--models", file.to_str().unwrap()];
    let server = TestServer::start_in(home.path(), &[&set[..], &models].concat(), &[]);
    let of = async |name: &str| {
        let mut body = body();
        body["model_name"] = json!(name);
        let picture = pictures_of(&server, &body).await.remove(0);
        let address = format!("{}/v1/provenance/verify", server.base());
        let said = send(http().post(address).body(picture.clone())).await.json();
        let model = get(&format!("{}/v1/models/{name}", server.base())).await.json();
        let said = said["parameters"]["precision"].clone();
        (picture, said, model["precision"].clone())
    };
    // The second one while the first is in memory, and the first again.
    let (plain, rounded, again) = (of("demo").await, of("rounded").await, of("demo").await);
    assert_eq!((&plain.1, &plain.2), (&Value::Null, &json!("f32")));
    assert_eq!((&rounded.1, &rounded.2), (&json!("bf16"), &json!("bf16")));
    assert_eq!((furthest(&plain.0, &in_f32), furthest(&again.0, &in_f32)), (0, 0));
    assert_eq!(furthest(&rounded.0, &in_bf16), 0);
    assert!(furthest(&plain.0, &rounded.0) > 0, "they are two models");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_asks_for_bf16_where_nothing_has_it_is_computed_in_the_devices_numbers() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("two.toml");
    fs_err::write(&file, TWO_ENTRIES).unwrap();
    for (settings, found) in [(["--isa", "portable"], "f32"), (["--device", "emulated"], "f16")] {
        let models = ["--models", file.to_str().unwrap()];
        let settings = [&settings[..], &models].concat();
        let doctor = std::process::Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args([&["doctor", "--listen", "127.0.0.1:0"][..], &settings].concat())
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&doctor.stdout);
        let words = said
            .lines()
            .find(|line| line.contains("`rounded` asks for precision bf16"));
        assert!(
            words.is_some_and(|words| words.ends_with(&format!("computed in {found}"))),
            "{said}"
        );
        let server = TestServer::start_in(home.path(), &settings, &[]);
        let model = get(&format!("{}/v1/models/rounded", server.base())).await.json();
        assert_eq!(model["precision"], found);
        drop(server);
    }
}
