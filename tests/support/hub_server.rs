//! A Hugging Face hub on this machine with the tiny model as `owner/tiny`, whose large files can be held back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::tests_folder;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A running hub.
#[derive(Debug)]
pub(crate) struct HubServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    requests: AtomicUsize,
    bodies: Mutex<Vec<String>>,
    /// Large files wait for it.
    gate: Semaphore,
}

impl HubServer {
    /// Large files do not come before [`HubServer::open`].
    pub(crate) async fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            folder: tests_folder().join("golden/models/tiny"),
            requests: AtomicUsize::new(0),
            bodies: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn open(&self) {
        self.shared.gate.add_permits(1000);
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The files whose bytes were asked for, each time.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.shared.bodies.lock().expect("no test panics with it").clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    drop(request);
    if path == "/api/models/owner/tiny/revision/main" {
        let mut siblings = Vec::new();
        for folder in ["", "scheduler", "tokenizer", "text_encoder", "unet", "vae"] {
            let files = fs_err::read_dir(shared.folder.join(folder)).expect("the tiny model has it");
            for file in files.flatten().filter(|file| file.path().is_file()) {
                let name = file.file_name().into_string().expect("it is ASCII");
                let path = if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                };
                siblings.push(json!({"rfilename": path}));
            }
        }
        return axum::Json(json!({"sha": COMMIT, "siblings": siblings})).into_response();
    }
    let file = ["main", COMMIT]
        .iter()
        .find_map(|revision| path.strip_prefix(&format!("/owner/tiny/resolve/{revision}/")));
    let Some(bytes) = file.and_then(|file| fs_err::read(shared.folder.join(file)).ok()) else {
        return (StatusCode::NOT_FOUND, [("x-error-code", "RepoNotFound")]).into_response();
    };
    let file = file.unwrap_or_default();
    let etag = format!("\"{:040x}\"", file.len() * 1_000_003 + bytes.len());
    let headers = [
        ("x-repo-commit", COMMIT.to_owned()),
        (header::ETAG.as_str(), etag),
        (header::CONTENT_LENGTH.as_str(), bytes.len().to_string()),
    ];
    if method == Method::HEAD {
        return headers.into_response();
    }
    shared
        .bodies
        .lock()
        .expect("no test panics with it")
        .push(file.to_owned());
    if file.ends_with(".safetensors") {
        // Held until the test lets it go.
        let _permit = shared.gate.acquire().await;
    }
    (headers, bytes).into_response()
}
