//! Two hundred requests that alternate among checkpoints and LoRA sets, through both dialects, with room for fewer: each
//! picture is the one that its request gives alone, the budget holds, and no model is loaded over and over.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;
use crate::support::{copy_folder, tests_folder};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const CHECKPOINTS: [&str; 3] = ["first", "second", "third"];
/// The sets of LoRAs, with strengths; the files are those of the golden pictures.
const SETS: [&[(&str, f64)]; 5] = [
    &[],
    &[("lora-kohya", 0.8)],
    &[("lora-peft", 0.6), ("lora-text", 0.9)],
    &[("lora-conv", 0.5)],
    &[("lora-unet", 1.0), ("lora-kohya", 0.3), ("lora-peft", 0.2)],
];
const REQUESTS: usize = 200;
/// How many callers there are, each of whom waits for its picture before it asks for the next.
const CALLERS: usize = 16;
/// About two of the three checkpoints.
const BUDGET: &str = "9MiB";

/// The tiny model with bits of the fractions of its UNet's weights turned, so that all three give other pictures.
fn write_checkpoint(folder: &Path, turned: u8) {
    copy_folder(&tests_folder().join("golden/models/tiny"), folder);
    let path = folder.join(UNET);
    let mut bytes = fs_err::read(&path).expect("the tiny model has it");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let weights = 8 + usize::try_from(header).expect("a small header");
    // In half precision: the low byte holds eight of the ten bits of the fraction.
    for number in bytes[weights..].as_chunks_mut::<2>().0 {
        number[0] ^= turned;
    }
    fs_err::write(path, bytes).expect("it can be written");
}

fn serve(home: &TempDir) -> TestServer {
    let mut catalogue = String::new();
    for (name, turned) in CHECKPOINTS.into_iter().zip([0, 0x40, 0x20]) {
        write_checkpoint(&home.path().join(name), turned);
        catalogue += &format!(
            "[[model]]\nname = \"{name}\"\nkind = \"checkpoint\"\nsource = \"{name}\"\nbase = \"sd15\"\n\n"
        );
    }
    for name in ["lora-kohya", "lora-peft", "lora-text", "lora-conv", "lora-unet"] {
        let file = tests_folder().join(format!("golden/lora_pipeline/{name}.safetensors"));
        catalogue += &format!("[[model]]\nname = \"{name}\"\nkind = \"lora\"\nsource = {file:?}\n\n");
    }
    let path = home.path().join("models.toml");
    fs_err::write(&path, catalogue).expect("the catalogue can be written");
    TestServer::start_with(
        &["--models", &path.display().to_string(), "--model-memory", BUDGET],
        &[("PENTIMENTO_LOG", "pentimento=debug")],
    )
}

/// Which checkpoint and set request number `k` names: no two neighbours have the same model.
fn wanted(k: usize) -> (&'static str, &'static [(&'static str, f64)]) {
    (CHECKPOINTS[k % CHECKPOINTS.len()], SETS[k % SETS.len()])
}

fn novita(k: usize) -> Value {
    let (checkpoint, set) = wanted(k);
    let mut body = good_body();
    body["model_name"] = json!(checkpoint);
    let lora = |(name, strength): &(&str, f64)| json!({"model_name": name, "strength": strength});
    body["loras"] = set.iter().map(lora).collect();
    body
}

fn modelslab(k: usize) -> Value {
    let (checkpoint, set) = wanted(k);
    let mut body = good_modelslab_body();
    body["model_id"] = json!(checkpoint);
    if !set.is_empty() {
        let listed = |part: fn(&(&str, f64)) -> String| set.iter().map(part).collect::<Vec<_>>().join(",");
        body["lora_model"] = json!(listed(|(name, _)| (*name).to_owned()));
        body["lora_strength"] = json!(listed(|(_, strength)| strength.to_string()));
    }
    body
}

/// Every fourth is ModelsLab's.
async fn picture(server: &TestServer, k: usize) -> Bytes {
    let reply = if k % 4 == 3 {
        let address = format!("{}/api/v1/enterprise/img2img", server.base());
        let reply = send(http().post(address).json(&modelslab(k))).await.json();
        assert_eq!(reply["status"], "success", "request {k}: {reply}");
        assert!(reply.get("warning").is_none(), "request {k}: {reply}");
        reply["output"][0].as_str().expect("an address").to_owned()
    } else {
        let reply = generate(server, &novita(k)).await;
        assert!(reply.status.is_success(), "request {k}: {}", reply.json());
        reply.json()["images"][0]["image_url"]
            .as_str()
            .expect("an address")
            .to_owned()
    };
    get(&reply).await.body
}

/// Looks at the account again and again, and gives the most that weights have taken.
async fn most_held(server: &TestServer, done: &AtomicBool) -> (u64, u64) {
    let (mut most, mut limit) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let weights = get(&format!("{}/v1/models", server.base())).await.json()["memory"]["weights"].clone();
        most = most.max(weights["held_bytes"].as_u64().expect("a number"));
        limit = weights["limit_bytes"].as_u64().expect("a number");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (most, limit)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_alternate_among_models_in_less_memory_than_they_need() {
    let home = tempfile::tempdir().expect("a folder for models");
    let server = serve(&home);
    // Fifteen models in each dialect, alone and in order.
    let models = CHECKPOINTS.len() * SETS.len();
    let kinds = models * 4;
    let mut alone = Vec::new();
    for k in 0..kinds {
        alone.push(picture(&server, k).await);
    }
    let different: HashSet<Vec<u8>> = alone
        .iter()
        .map(|file| pictures::decode(file).into_raw())
        .collect();
    assert_eq!(
        different.len(),
        2 * models,
        "each model makes pictures of its own"
    );

    let before = loads(&server);
    let done = AtomicBool::new(false);
    let together = async {
        let pictures = stream::iter(0..REQUESTS).map(|k| {
            let server = &server;
            async move { (k, picture(server, k).await) }
        });
        let pictures: Vec<_> = pictures.buffer_unordered(CALLERS).collect().await;
        done.store(true, Ordering::Relaxed);
        pictures
    };
    let (pictures, (most, limit)) = futures::join!(together, most_held(&server, &done));
    for (k, picture) in pictures {
        assert!(
            picture == alone[k % kinds],
            "request {k} gave another picture than alone"
        );
    }
    assert!(most <= limit, "{most} bytes of weights were held, of {limit}");
    let loads = loads(&server) - before;
    println!("{loads} loads for {REQUESTS} requests; at most {most} of {limit} bytes");
    assert!(loads <= REQUESTS / 2, "{loads} loads: the models thrash");
}

/// How often a model was brought into use.
fn loads(server: &TestServer) -> usize {
    server.log().matches("a model is loaded").count()
}
