//! Textual inversions and VAEs through both dialects: they change the image, and are refused or explained by name.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lora::{modelslab, novita, picture, write};
use crate::support::server::TestServer;

/// Of the demo model's text encoder.
const WIDTH: usize = 128;

/// A server with the demo model, embeddings and VAEs.
fn server() -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().expect("a folder for the embeddings");
    for (name, width) in [("scribble", WIDTH), ("foreign", 768)] {
        let path = folder.path().join(format!("{name}.safetensors"));
        write(&path, &[("emb_params".to_owned(), vec![2, width])]);
    }
    let token = folder.path().join("token.safetensors");
    write(&token, &[("<smudge>".to_owned(), vec![1, WIDTH])]);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/vae");
    let golden = golden.display();
    let mut catalogue = String::new();
    for (name, kind, source) in [
        ("demo", "checkpoint", "embedded:demo".to_owned()),
        ("scribble", "embedding", "scribble.safetensors".to_owned()),
        ("foreign", "embedding", "foreign.safetensors".to_owned()),
        ("smudges", "embedding", "token.safetensors".to_owned()),
        ("missing", "embedding", "nowhere.pt".to_owned()),
        ("tiny", "vae", format!("{golden}/tiny-taesd")),
        ("other-latents", "vae", format!("{golden}/inner_encoder.pth")),
        ("no-vae", "vae", "scribble.safetensors".to_owned()),
    ] {
        let entry = format!("[[model]]\nname = \"{name}\"\nkind = \"{kind}\"\nsource = \"{source}\"\n");
        catalogue.write_str(&entry).expect("a text grows");
    }
    let file = folder.path().join("models.toml");
    fs_err::write(&file, catalogue).expect("the folder can be written");
    let server = TestServer::start_with(&["--models", file.to_str().expect("a plain path")], &[]);
    (server, folder)
}

/// The pixels of Novita's reply, and its warning.
async fn made(server: &TestServer, change: Value) -> (Vec<u8>, String) {
    let (status, reply) = novita(server, change).await;
    assert_eq!(status, 200, "{reply}");
    let (pixels, _) = picture(&reply["images"][0]["image_url"]).await;
    let warning = reply["warning"].as_str().unwrap_or_default();
    (pixels, warning.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedding_counts_where_its_word_is_written() {
    let (server, _folder) = server();
    let (plain, _) = made(&server, json!({"prompt": "a red house"})).await;
    let (written, _) = made(&server, json!({"prompt": "a red house, SCRIBBLE"})).await;
    assert_ne!(
        written, plain,
        "the catalogue has it, so that it need not be named"
    );
    let named = json!({"prompt": "a red house, scribble", "embeddings": [{"model_name": "scribble"}]});
    assert_eq!(made(&server, named).await.0, written);
    let (heavier, _) = made(&server, json!({"prompt": "a red house, (scribble:1.5)"})).await;
    assert_ne!(heavier, written);
    let token = json!({"prompt": "a red house <smudge>", "embeddings": [{"model_name": "smudges"}]});
    let (by_token, warning) = made(&server, token).await;
    assert_ne!(by_token, plain, "the file's own word counts, too");
    let (unnamed, _) = made(&server, json!({"prompt": "a red house <smudge>"})).await;
    assert_eq!(unnamed, by_token);
    assert!(!warning.contains("smudges"), "{warning}");
    let unused = json!({"prompt": "a red house", "embeddings": [{"model_name": "scribble"}]});
    let (same, warning) = made(&server, unused).await;
    assert_eq!(same, plain);
    assert!(
        warning.contains("The embedding scribble has no effect"),
        "{warning}"
    );
    // In the negative prompt, under guidance.
    let guided = |negative: &str| {
        let change = json!({"prompt": "a red house", "guidance_scale": 7.5, "negative_prompt": negative});
        modelslab(&server, change)
    };
    let (plain, negative) = (guided("blue").await, guided("blue scribble").await);
    let pixels = async |reply: &Value| picture(&reply["output"][0]).await.0;
    assert_ne!(pixels(&plain).await, pixels(&negative).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_another_base_is_refused_by_its_field() {
    let (server, _folder) = server();
    for (change, field, reason) in [
        (
            json!({"embeddings": [{"model_name": "foreign"}]}),
            "embeddings",
            "width [768]",
        ),
        (
            json!({"embeddings": [{"model_name": "missing"}]}),
            "embeddings",
            "cannot be used now",
        ),
        (json!({"sd_vae": "other-latents"}), "sd_vae", "6 latent channels"),
        (json!({"sd_vae": "no-vae"}), "sd_vae", "not those of a VAE"),
    ] {
        let (status, reply) = novita(&server, change.clone()).await;
        assert_ne!(status, 200, "{change}");
        assert_eq!(reply["metadata"]["field"], field, "{change}: {reply}");
        let message = reply["message"].as_str().unwrap_or_default();
        assert!(message.contains(reason), "{change}: {reply}");
        assert!(!message.contains('/'), "no path is told: {reply}");
    }
    // A mere word refuses nothing: it stays text, and that is said.
    let (_, warning) = made(&server, json!({"prompt": "a foreign house"})).await;
    assert!(warning.contains("foreign"), "{warning}");
    for (change, field) in [
        (json!({"embeddings_model": "foreign"}), "embeddings_model"),
        (json!({"vae": "other-latents"}), "vae"),
    ] {
        let reply = modelslab(&server, change.clone()).await;
        assert_eq!(reply["status"], "error", "{change}: {reply}");
        assert!(reply["message"][field].is_array(), "{change}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_autoencoder_takes_the_place_of_the_vae() {
    let (server, _folder) = server();
    let (own, _) = made(&server, json!({})).await;
    let (tiny, warning) = made(&server, json!({"sd_vae": "tiny"})).await;
    assert_ne!(own, tiny);
    assert!(!warning.contains("sd_vae"), "{warning}");
    let reply = modelslab(&server, json!({"vae": "tiny"})).await;
    assert_eq!(reply["status"], "success", "{reply}");
}
