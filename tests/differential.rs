//! Differential diffusion through ModelsLab's dialect: the grey of a mask says how much each pixel may change.

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::support::client::{get, good_modelslab_body, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;

const SIDE: u32 = 128;
/// Of the bands of the map, from left to right.
const LEVELS: [u8; 4] = [0, 85, 170, 255];

fn band_of(x: u32) -> usize {
    (x * 4 / SIDE) as usize
}

/// A map of upright bands, in base64.
fn bands() -> String {
    use base64::Engine as _;
    let map = RgbImage::from_fn(SIDE, SIDE, |x, _| Rgb([LEVELS[band_of(x)]; 3]));
    let mut file = Vec::new();
    map.write_to(&mut std::io::Cursor::new(&mut file), ImageFormat::Png)
        .expect("a picture can be encoded");
    base64::engine::general_purpose::STANDARD.encode(file)
}

fn body(seed: u64) -> Value {
    let mut body = good_modelslab_body();
    for (field, value) in [
        ("init_image", json!(pictures::base64("images/scene.png"))),
        ("mask_image", json!(bands())),
        ("differential_diffusion", json!("yes")),
        ("width", json!(SIDE)),
        ("height", json!(SIDE)),
        ("num_inference_steps", json!(8)),
        ("strength", json!(1.0)),
        ("scheduler", json!("DDIMScheduler")),
        ("seed", json!(seed)),
    ] {
        body[field] = value;
    }
    body
}

async fn call(server: &TestServer, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/inpaint", server.base());
    send(http().post(address).json(body)).await.json()
}

async fn picture(server: &TestServer, body: &Value) -> RgbImage {
    let reply = call(server, body).await;
    assert_eq!(reply["status"], "success", "{reply}");
    pictures::decode(&get(reply["output"][0].as_str().expect("a link")).await.body)
}

fn server() -> TestServer {
    TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "600")])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lighter_the_map_the_more_changes_and_black_stays() {
    let server = server();
    let scene = pictures::decode(&pictures::bytes("images/scene.png"));
    assert_eq!(scene.dimensions(), (SIDE, SIDE));
    let reply = call(&server, &body(1)).await;
    assert_eq!(reply["meta"]["differential_diffusion"], "yes", "{reply}");
    let mut changes = [0_u64; 4];
    for seed in 1..=3 {
        let found = picture(&server, &body(seed)).await;
        for (x, y, pixel) in found.enumerate_pixels() {
            let before = scene.get_pixel(x, y);
            let levels = pixel.0.iter().zip(before.0);
            changes[band_of(x)] += levels.map(|(a, b)| u64::from(a.abs_diff(b))).sum::<u64>();
        }
    }
    assert_eq!(changes[0], 0, "black stays");
    assert!(changes.is_sorted_by(|less, more| less < more), "{changes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn company_changes_nothing() {
    let server = server();
    let bodies: Vec<Value> = (0..4_u64)
        .map(|seed| {
            let mut body = body(seed);
            body["differential_diffusion"] = json!(if seed < 3 { "yes" } else { "no" });
            body["strength"] = json!([1.0, 0.6, 0.8, 1.0][usize::try_from(seed).expect("few")]);
            body
        })
        .collect();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(picture(&server, body).await);
    }
    assert_ne!(alone[0], alone[3]);
    let together = futures::future::join_all(bodies.iter().map(|body| picture(&server, body))).await;
    assert!(together == alone, "a picture depends on its company");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_inverts_is_refused_by_the_fields_name() {
    let mut body = body(1);
    body["scheduler"] = json!("DDIMInverseScheduler");
    let reply = call(&server(), &body).await;
    assert_eq!(reply["status"], "error", "{reply}");
    let message = reply["message"]["differential_diffusion"][0].as_str();
    assert!(
        message.is_some_and(|text| text.contains("DDIMInverse")),
        "{reply}"
    );
}
