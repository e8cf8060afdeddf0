//! Models that are no models: pipes, devices, pages, cut files. Each is refused with its reason, and hurts no other.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err::os::unix::fs::symlink;
use futures::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;
use crate::support::{copy_folder, tests_folder};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
/// Far more than an answer takes; a server that hangs does not answer at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Copies of the tiny model, to be damaged, and a catalogue of them.
struct Models {
    home: TempDir,
    entries: String,
}

impl Models {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a folder for models"),
            entries: String::new(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn add(&mut self, name: &str) {
        self.entries += &format!(
            "[[model]]\nname = \"{name}\"\nkind = \"checkpoint\"\nsource = \"{name}\"\nbase = \"sd15\"\n\n"
        );
    }

    fn add_tiny(&mut self, name: &str) {
        copy_folder(&tests_folder().join("golden/models/tiny"), &self.path(name));
        self.add(name);
    }

    /// The tiny model with one file changed.
    fn add_with(&mut self, name: &str, file: &str, change: impl FnOnce(&Path)) {
        self.add_tiny(name);
        let path = self.path(name).join(file);
        fs_err::remove_file(&path).expect("the tiny model has it");
        change(&path);
    }

    fn serve(&self) -> TestServer {
        let catalogue = self.path("models.toml");
        fs_err::write(&catalogue, &self.entries).expect("the catalogue can be written");
        TestServer::start_with(&["--models", &catalogue.display().to_string()], &[])
    }
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("there is mkfifo").success());
}

async fn modelslab(server: &TestServer, model: &str) -> Value {
    let mut body = good_modelslab_body();
    body["model_id"] = json!(model);
    let request = http().post(format!("{}/api/v1/enterprise/img2img", server.base()));
    let reply = timeout(PATIENCE, send(request.json(&body))).await;
    reply.unwrap_or_else(|_| panic!("{model}: no answer")).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_none_is_refused_with_its_reason_and_hurts_no_other() {
    let mut models = Models::new();
    models.add_tiny("good");
    models.add("pipe");
    pipe(&models.path("pipe"));
    models.add_with("pipe-config", "unet/config.json", pipe);
    models.add_with("pipe-weights", UNET, pipe);
    models.add_with("endless-config", "unet/config.json", |path| {
        symlink("/dev/zero", path).expect("a link can be made");
    });
    models.add_with("endless-merges", "tokenizer/merges.txt", |path| {
        symlink("/dev/zero", path).expect("a link can be made");
    });
    models.add_with("page", UNET, |path| {
        fs_err::write(path, "<!DOCTYPE html><title>404").expect("it can be written");
    });
    models.add_with("cut", UNET, |path| {
        let whole = fs_err::read(tests_folder().join("golden/models/tiny").join(UNET)).expect("it is there");
        fs_err::write(path, &whole[..whole.len() / 2]).expect("it can be written");
    });
    models.add_with("merges", "tokenizer/merges.txt", |path| {
        fs_err::write(path, "nonsense").expect("it can be written");
    });
    let server = models.serve();
    // Four at once took all threads.
    let healthz = format!("{}/healthz", server.base());
    let many = join_all((0..8).map(|_| modelslab(&server, "pipe")));
    let (many, health) = tokio::join!(many, timeout(PATIENCE, get(&healthz)));
    assert_eq!(health.expect("it answers").status, 200);
    for reply in many {
        assert_eq!(reply["status"], "error", "{reply}");
    }
    for (model, reason) in [
        ("pipe-config", "unet/config.json: not a model: a pipe"),
        ("pipe-weights", "safetensors"),
        ("endless-config", "unet/config.json: not a model: a device"),
        ("endless-merges", "tokenizer/merges.txt: not a model: a device"),
        ("page", "an HTML or XML page instead of weights"),
        ("cut", "cut short or damaged"),
        ("merges", "merges.txt: `nonsense` is not a pair"),
    ] {
        // Remembered, so the second answer is the first one.
        for _ in 0..2 {
            let reply = modelslab(&server, model).await;
            let text = reply.to_string();
            assert!(text.contains(reason), "{model}: {text}");
            assert!(reply.get("retry_after").is_none(), "{model}: {text}");
            assert!(
                !text.contains(&models.home.path().display().to_string()),
                "a path is shown: {text}"
            );
        }
    }
    let mut body = good_body();
    body["model_name"] = json!("merges");
    let refused = generate(&server, &body).await;
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    assert!(!refused.headers.contains_key("retry-after"));
    assert!(String::from_utf8_lossy(&refused.body).contains("merges.txt"));
    // Repaired, it works at once, without a restart.
    let merges = "tokenizer/merges.txt";
    fs_err::copy(
        tests_folder().join("golden/models/tiny").join(merges),
        models.path("merges").join(merges),
    )
    .expect("it can be repaired");
    for model in ["merges", "good"] {
        let reply = modelslab(&server, model).await;
        assert_eq!(reply["status"], "success", "{model}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_are_cut_and_restored_while_they_are_loaded_end_no_process() {
    const ROUNDS: usize = 12;
    let mut models = Models::new();
    models.add_tiny("moving");
    let weights = models.path("moving").join(UNET);
    let whole = fs_err::read(&weights).expect("it is there");
    let mut server = models.serve();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (path, bytes) = (weights.clone(), whole.clone());
    let cutting = std::thread::spawn(move || {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("it can be opened");
        while stopped.try_recv().is_err() {
            file.set_len(bytes.len() as u64 / 3).expect("it can be cut");
            std::thread::sleep(Duration::from_millis(3));
            fs_err::write(&path, &bytes).expect("it can be written");
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    for _ in 0..ROUNDS {
        let reply = modelslab(&server, "moving").await;
        assert!(reply["status"].is_string(), "{reply}");
        assert!(server.is_alive(), "{reply}");
    }
    stop.send(()).expect("it still cuts");
    cutting.join().expect("it has not failed");
    fs_err::write(&weights, &whole).expect("it can be written");
    // A failure that may pass is remembered for ten seconds.
    for _ in 0..30 {
        if modelslab(&server, "moving").await["status"] == "success" {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("the restored model cannot be loaded");
}
