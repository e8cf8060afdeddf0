//! The door of A1111's web UI against the real binary: what a mask keeps, what a seed repeats, what a restart survives.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde_json::{Value, json};

use crate::lora::catalogue_with_a_lora;
use crate::support::client::{Reply, get, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;

const SCENE: &str = "images/scene.png";
const MASK: &str = "images/mask.png";

async fn post(server: &TestServer, path: &str, body: &Value) -> Reply {
    let address = format!("{}/sdapi/v1/{path}", server.base());
    send(http().post(address).json(body)).await
}

/// The smallest call that costs little.
fn body() -> Value {
    json!({
        "init_images": [pictures::base64(SCENE)],
        "prompt": "a red house under a blue sky",
        "width": 128,
        "height": 128,
        "steps": 4,
        "cfg_scale": 1,
        "seed": 7,
        "sampler_name": "DDIM",
    })
}

fn with(changes: Value) -> Value {
    let mut body = body();
    for (field, value) in changes.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body
}

async fn files(server: &TestServer, path: &str, body: &Value) -> Vec<Vec<u8>> {
    let reply = post(server, path, body).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let reply = reply.json();
    let images = reply["images"].as_array().expect("images");
    let file = |image: &Value| STANDARD.decode(image.as_str().expect("a text")).expect("base64");
    images.iter().map(file).collect()
}

/// How many pixels are kept and how many are not, after seeing that those are kept that must be.
fn kept(made: &RgbImage, scene: &RgbImage, must_be: impl Fn(u32, u32) -> bool) -> (u32, u32) {
    assert_eq!(made.dimensions(), scene.dimensions());
    let (mut kept, mut changed) = (0, 0);
    for (x, y, pixel) in made.enumerate_pixels() {
        let same = pixel == scene.get_pixel(x, y);
        assert!(same || !must_be(x, y), "the pixel {x}, {y} is not kept");
        *(if same { &mut kept } else { &mut changed }) += 1;
    }
    (kept, changed)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mask_keeps_comes_back_pixel_for_pixel_whichever_way_it_is_painted() {
    let server = TestServer::start();
    let scene = pictures::decode(&pictures::bytes(SCENE));
    let mask = pictures::decode(&pictures::bytes(MASK));
    let is_black = |x: u32, y: u32| mask.get_pixel(x, y).0[0] == 0;
    for only_masked in [true, false] {
        for fill in [0, 1] {
            let body = with(json!({
                "mask": pictures::base64(MASK), "mask_blur": 0, "inpaint_full_res": only_masked, "inpainting_fill": fill,
                "denoising_strength": 1.0, "inpaint_full_res_padding": 8,
            }));
            let made = files(&server, "img2img", &body).await;
            let (kept, changed) = kept(&pictures::decode(&made[0]), &scene, is_black);
            assert!(
                kept > 1000 && changed > 300,
                "{only_masked} {fill}: {kept} kept, {changed} changed"
            );
        }
    }
    // Turned round, the other part is kept.
    let body = with(json!({
        "mask": pictures::base64(MASK), "mask_blur": 0, "inpainting_mask_invert": 1, "inpaint_full_res": false,
        "denoising_strength": 1.0,
    }));
    let made = files(&server, "img2img", &body).await;
    let is_white = |x: u32, y: u32| mask.get_pixel(x, y).0[0] == 255;
    let (kept, changed) = kept(&pictures::decode(&made[0]), &scene, is_white);
    assert!(kept > 300 && changed > 1000, "{kept} kept, {changed} changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_masked_part_of_a_larger_picture_is_painted_and_the_result_has_its_size() {
    let server = TestServer::start();
    let scene = pictures::decode(&pictures::bytes(SCENE));
    let large = image::imageops::resize(&scene, 600, 424, image::imageops::FilterType::Triangle);
    let mut mask = RgbImage::new(600, 424);
    for y in 100..140 {
        for x in 300..360 {
            mask.put_pixel(x, y, image::Rgb([255; 3]));
        }
    }
    let png = |image: &RgbImage| {
        let mut file = std::io::Cursor::new(Vec::new());
        image
            .write_to(&mut file, image::ImageFormat::Png)
            .expect("it is encoded");
        STANDARD.encode(file.into_inner())
    };
    let body = with(json!({
        "init_images": [png(&large)], "mask": png(&mask), "mask_blur": 3, "inpaint_full_res_padding": 16,
        "inpainting_fill": 1, "denoising_strength": 0.9,
    }));
    let made = pictures::decode(&files(&server, "img2img", &body).await[0]);
    // Eight samples of blur reach to each side.
    let is_far = |x: u32, y: u32| !(292..368).contains(&x) || !(92..148).contains(&y);
    let (_, changed) = kept(&made, &large, is_far);
    assert!(changed > 1500, "{changed} changed");
    // Nothing to paint: nothing is painted.
    let body = with(json!({"init_images": [png(&large)], "mask": png(&RgbImage::new(600, 424))}));
    let back = pictures::decode(&files(&server, "img2img", &body).await[0]);
    assert!(back == large, "the picture comes back as it was");
    let wrong = with(json!({"mask": png(&mask)}));
    let refused = post(&server, "img2img", &wrong).await;
    assert_eq!(refused.status, 422);
    let refused = refused.json();
    assert_eq!(refused["detail"][0]["loc"], json!(["body", "mask"]));
    let text = refused["detail"][0]["msg"].as_str().expect("a text");
    assert!(text.contains("600x424") && text.contains("128x128"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_repeats_its_picture_alone_in_a_batch_and_beside_other_images() {
    let server = TestServer::start();
    let alone = files(&server, "img2img", &with(json!({"seed": 8}))).await;
    let batch = files(&server, "img2img", &with(json!({"batch_size": 2}))).await;
    assert_eq!(batch[1], alone[0], "image k of a batch is that of seed + k");
    let scene = pictures::base64(SCENE);
    let images = files(&server, "img2img", &with(json!({"init_images": [scene, scene]}))).await;
    assert_eq!(
        images, batch,
        "two images to start from are painted as two of one"
    );
    let text =
        json!({"prompt": "a red house", "width": 128, "height": 64, "steps": 3, "cfg_scale": 1, "seed": 1});
    let first = files(&server, "txt2img", &text).await;
    assert_eq!(pictures::decode(&first[0]).dimensions(), (128, 64));
    assert_eq!(files(&server, "txt2img", &text).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn strength_runs_one_step_more_than_its_share() {
    let server = TestServer::start();
    let reply = post(
        &server,
        "img2img",
        &with(json!({"steps": 8, "denoising_strength": 0.5})),
    )
    .await;
    assert_eq!(reply.status, 200);
    let id = reply.headers["x-job-id"].to_str().expect("a text").to_owned();
    let job = get(&format!("{}/v1/jobs/{id}", server.base())).await.json();
    assert_eq!(
        (&job["state"], &job["recipe"]["strength"]),
        (&json!("succeeded"), &json!(0.5)),
        "{job}"
    );
    // int(8 * 0.5) + 1 steps: as those of strength 0.625 by the rule of diffusers.
    let as_there = files(
        &server,
        "img2img",
        &with(json!({"steps": 8, "denoising_strength": 0.5})),
    )
    .await;
    let body = json!({
        "key": "any", "model_id": "demo", "init_image": pictures::base64(SCENE), "prompt": "a red house under a blue sky",
        "width": 128, "height": 128, "num_inference_steps": 8, "strength": 0.625, "seed": 7, "guidance_scale": 1,
        "scheduler": "DDIMScheduler", "use_karras_sigmas": "no", "safety_checker": "no", "enhance_prompt": "no", "tomesd": "no",
    });
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    let other = send(http().post(address).json(&body)).await.json();
    let other = get(other["output"][0].as_str().expect("a link")).await;
    assert_eq!(
        pictures::decode(&as_there[0]),
        pictures::decode(&other.body),
        "both doors make one picture"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lora_is_a_tag_and_the_tag_is_no_word() {
    let home = tempfile::tempdir().expect("a folder for the catalogue");
    let catalogue = catalogue_with_a_lora(home.path());
    let server = TestServer::start_with(&["--models", &catalogue], &[]);
    let prompt = "a red house under a blue sky";
    let plain = files(&server, "img2img", &body()).await;
    let with_lora = with(json!({"prompt": format!("{prompt}<lora:style:0.9>")}));
    let styled = files(&server, "img2img", &with_lora).await;
    assert_ne!(pictures::decode(&plain[0]), pictures::decode(&styled[0]));
    let nothing = with(json!({"prompt": format!("{prompt}<lora:style:0>")}));
    let unstyled = files(&server, "img2img", &nothing).await;
    assert_eq!(
        pictures::decode(&plain[0]),
        pictures::decode(&unstyled[0]),
        "at weight 0 nothing is left of it"
    );
    let unknown = with(json!({"prompt": "<lora:styel:1>"}));
    let refused = post(&server, "img2img", &unknown).await.json();
    let text = refused["detail"][0]["msg"].as_str().expect("a text");
    assert!(
        text.starts_with("prompt: there is no LoRA named `styel`") && text.contains("`style`"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_framed_job_of_a_killed_server_is_made_by_the_next_one() {
    let home = tempfile::tempdir().expect("a folder for the server");
    let server = TestServer::start_in(home.path(), &[], &[]);
    let framed = with(json!({
        "mask": pictures::base64(MASK), "mask_blur": 2, "denoising_strength": 0.9, "steps": 150,
        "inpaint_full_res_padding": 4,
    }));
    let address = format!("{}/sdapi/v1/img2img", server.base());
    // Named, so that it goes on without the one who asked.
    let named = |address: String| {
        http()
            .post(address)
            .header("idempotency-key", "framed")
            .json(&framed)
    };
    let asked = tokio::spawn(named(address).send());
    let jobs = format!("{}/v1/jobs", server.base());
    while get(&jobs).await.json()["jobs"][0]["state"] != "running" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    let _ = asked.await;
    let server = TestServer::start_in(home.path(), &[], &[]);
    let address = format!("{}/sdapi/v1/img2img", server.base());
    let again = send(named(address)).await.json();
    let jobs = get(&format!("{}/v1/jobs", server.base())).await.json();
    let jobs = jobs["jobs"].as_array().expect("jobs");
    assert_eq!(
        (jobs.len(), &jobs[0]["attempt"]),
        (1, &json!(2)),
        "it had begun, and was made anew: {jobs:?}"
    );
    let made = STANDARD
        .decode(again["images"][0].as_str().expect("a picture"))
        .expect("base64");
    assert_eq!(
        made,
        files(&server, "img2img", &framed).await[0],
        "as if nothing had been"
    );
}
