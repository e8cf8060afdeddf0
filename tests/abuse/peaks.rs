//! Large photos, and the memory that they took: it comes back.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{good_modelslab_body, http, send};
use crate::support::server::TestServer;

const MIB: u64 = 1024 * 1024;

/// A JPEG of a camera's size that has next to nothing in it, in base64.
fn photo(width: u32, height: u32) -> String {
    let picture = image::RgbImage::from_pixel(width, height, image::Rgb([90, 120, 60]));
    let mut file = Cursor::new(Vec::new());
    picture
        .write_to(&mut file, image::ImageFormat::Jpeg)
        .expect("a JPEG can be written");
    STANDARD.encode(file.into_inner())
}

async fn img2img(server: &TestServer, photo: &str) -> Value {
    let mut body = good_modelslab_body();
    body["init_image"] = json!(photo);
    let request = http().post(format!("{}/api/v1/enterprise/img2img", server.base()));
    send(request.json(&body)).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_of_24_megapixels_is_taken_and_one_beyond_the_setting_is_refused_by_it() {
    let photo = photo(6000, 4000);
    let server = TestServer::start();
    let reply = img2img(&server, &photo).await;
    assert_eq!(reply["status"], "success", "{reply}");
    let narrow = TestServer::start_with(&[], &[("PENTIMENTO_MAX_IMAGE_MEGAPIXELS", "20")]);
    let reply = img2img(&narrow, &photo).await;
    assert_eq!(reply["status"], "error", "{reply}");
    let text = reply["message"]["init_image"].to_string();
    for part in [
        "24000000 pixels",
        "6000x4000",
        "20000000",
        "PENTIMENTO_MAX_IMAGE_MEGAPIXELS",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let poor = TestServer::start_with(&[], &[("PENTIMENTO_IMAGE_MEMORY", "100MiB")]);
    let text = img2img(&poor, &photo).await["message"]["init_image"].to_string();
    for part in ["6000x4000", "104857600", "PENTIMENTO_IMAGE_MEMORY"] {
        assert!(text.contains(part), "{text}");
    }
}

/// Waits until the server holds at most so much, and says how much it is.
async fn until_at_most(server: &TestServer, allowed: u64, patience: Duration) -> u64 {
    let give_up = Instant::now() + patience;
    loop {
        let held = server.resident_memory();
        if held <= allowed || Instant::now() > give_up {
            return held;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_peak_comes_back_within_a_minute() {
    const MINUTE: Duration = Duration::from_secs(60);
    let server = TestServer::start();
    let small = photo(64, 64);
    // The model is in memory from here on, and stays.
    assert_eq!(img2img(&server, &small).await["status"], "success");
    let start = server.resident_memory();
    let large = photo(4000, 3000);
    let replies = join_all((0..4).map(|_| img2img(&server, &large))).await;
    assert!(
        replies.iter().all(|reply| reply["status"] == "success"),
        "{replies:?}"
    );
    let (peak, end) = (server.peak_memory(), Instant::now());
    let held = until_at_most(&server, start + start / 2, MINUTE).await;
    println!(
        "start {} MiB, peak {} MiB, {} MiB after {:?}",
        start / MIB,
        peak / MIB,
        held / MIB,
        end.elapsed()
    );
    assert!(peak > start + 60 * MIB, "that was no peak: {} MiB", peak / MIB);
    assert!(
        held <= start + start / 2,
        "from {} MiB to {} MiB, and {} MiB are still held",
        start / MIB,
        peak / MIB,
        held / MIB
    );
}
