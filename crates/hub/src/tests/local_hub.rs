//! A hub with one repository, in memory: the API's list of files, HEAD and GET of `resolve/…` with the headers of the
//! public hub, and a second server on another port where large files are, as its content network is.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, IF_RANGE, LOCATION, RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use url::Url;

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One answer of the content network that is not as it should be.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// The connection breaks after so many bytes of the body.
    BreakAfter(usize),
    /// This status, whatever was asked.
    Status(u16),
    /// Bytes of the same number with another content.
    WrongBytes,
    /// All of the file, though a part was asked for.
    NoParts,
    /// As from a file that has been changed: another ETag from now on.
    Changed,
}

#[derive(Debug, Default)]
struct Files {
    /// By path; a large file is on the content network.
    files: BTreeMap<String, (Bytes, bool)>,
    /// Sizes that are announced instead of the true ones.
    announced: HashMap<String, u64>,
    /// What the hub answers instead of all files: status and error code.
    refusal: Option<(u16, Option<&'static str>)>,
    troubles: Vec<Trouble>,
    version: u32,
    log: Vec<Seen>,
}

/// A request that has come.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) token: Option<String>,
    pub(super) if_range: bool,
    pub(super) on_network: bool,
}

#[derive(Debug)]
pub(super) struct LocalHub {
    pub(super) endpoint: Url,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Mutex<Files>,
    network: SocketAddr,
    /// One permit lets one body of the content network go; many are there from the start.
    gate: Semaphore,
}

impl LocalHub {
    pub(super) async fn start() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", hub.local_addr().unwrap())).unwrap();
        let shared = Arc::new(Shared {
            files: Mutex::default(),
            network: network.local_addr().unwrap(),
            gate: Semaphore::new(1000),
        });
        for listener in [hub, network] {
            let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        Self { endpoint, shared }
    }

    pub(super) fn small(self, path: &str, bytes: impl Into<Bytes>) -> Self {
        self.add(path, bytes.into(), false)
    }

    pub(super) fn large(self, path: &str, bytes: impl Into<Bytes>) -> Self {
        self.add(path, bytes.into(), true)
    }

    fn add(self, path: &str, bytes: Bytes, is_large: bool) -> Self {
        self.files().files.insert(path.to_owned(), (bytes, is_large));
        self
    }

    pub(super) fn announce(&self, path: &str, size: u64) {
        self.files().announced.insert(path.to_owned(), size);
    }

    pub(super) fn refuse(&self, status: u16, code: Option<&'static str>) {
        self.files().refusal = Some((status, code));
    }

    pub(super) fn accept(&self) {
        self.files().refusal = None;
    }

    /// What goes wrong with the next bodies, one each.
    pub(super) fn trouble(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.files().troubles = troubles.into_iter().collect();
        self.files().troubles.reverse();
    }

    /// From now on a body of the content network waits for a permit.
    pub(super) fn close_gate(&self) {
        self.shared.gate.forget_permits(1000);
    }

    pub(super) fn open_gate(&self) {
        self.shared.gate.add_permits(1000);
    }

    pub(super) fn network_address(&self, path: &str) -> String {
        format!("http://{}/{path}", self.shared.network)
    }

    pub(super) fn log(&self) -> Vec<Seen> {
        self.files().log.clone()
    }

    /// How often a body was asked for from the content network.
    pub(super) fn bodies(&self) -> usize {
        self.log()
            .iter()
            .filter(|seen| seen.on_network && seen.method == Method::GET)
            .count()
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.shared.files.lock().unwrap()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let text = |name| {
        let value = parts.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let on_network = text(HOST) == Some(shared.network.to_string());
    let path = parts.uri.path().trim_start_matches('/').to_owned();
    let seen = Seen {
        method: parts.method.clone(),
        path: path.clone(),
        range: text(RANGE),
        token: text(AUTHORIZATION),
        if_range: text(IF_RANGE).is_some(),
        on_network,
    };
    shared.files.lock().unwrap().log.push(seen.clone());
    if on_network {
        return on_content_network(&shared, &seen, text(IF_RANGE)).await;
    }
    if let Some((status, code)) = shared.files.lock().unwrap().refusal {
        let status = StatusCode::from_u16(status).unwrap();
        let mut headers = HeaderMap::new();
        if let Some(code) = code {
            headers.insert("x-error-code", code.parse().unwrap());
        }
        return (status, headers).into_response();
    }
    let files = shared.files.lock().unwrap();
    if path == "api/models/owner/repo/revision/main" {
        let siblings: Vec<_> = files
            .files
            .iter()
            .map(|(path, (bytes, _))| json!({"rfilename": path, "size": bytes.len()}))
            .collect();
        return axum::Json(json!({"sha": COMMIT, "siblings": siblings, "private": false})).into_response();
    }
    let file = path
        .strip_prefix("owner/repo/resolve/")
        .and_then(|rest| rest.split_once('/'));
    let Some((revision, file)) = file else {
        return not_found("RepoNotFound");
    };
    if ![COMMIT, "main"].contains(&revision) {
        return not_found("RevisionNotFound");
    }
    match files.files.get(file) {
        None => not_found("EntryNotFound"),
        Some((bytes, is_large)) => of_hub(&shared, &files, (file, bytes, *is_large), &seen.method),
    }
}

/// A small file itself, or where a large one is.
fn of_hub(
    shared: &Shared,
    files: &Files,
    (file, bytes, is_large): (&str, &Bytes, bool),
    method: &Method,
) -> Response {
    let size = files.announced.get(file).copied().unwrap_or(bytes.len() as u64);
    let mut headers = HeaderMap::new();
    headers.insert("x-repo-commit", COMMIT.parse().unwrap());
    if is_large {
        headers.insert("x-linked-size", size.to_string().parse().unwrap());
        headers.insert("x-linked-etag", format!("\"{}\"", sha256(bytes)).parse().unwrap());
        let place = format!("http://{}/{file}", shared.network);
        headers.insert(LOCATION, place.parse().unwrap());
        return (StatusCode::FOUND, headers).into_response();
    }
    // As git names it, in length.
    headers.insert(ETAG, format!("\"{}\"", &sha256(bytes)[..40]).parse().unwrap());
    headers.insert(CONTENT_LENGTH, size.to_string().parse().unwrap());
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(bytes.clone())
    };
    (headers, body).into_response()
}

async fn on_content_network(shared: &Shared, seen: &Seen, if_range: Option<String>) -> Response {
    shared.gate.acquire().await.unwrap().forget();
    shared.gate.add_permits(1);
    let mut files = shared.files.lock().unwrap();
    let Some((bytes, _)) = files.files.get(&seen.path).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let trouble = files.troubles.pop();
    if matches!(trouble, Some(Trouble::Changed)) {
        files.version += 1;
    }
    if let Some(Trouble::Status(status)) = trouble {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let etag = format!("\"{}-{}\"", seen.path.len(), files.version);
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, etag.parse().unwrap());
    headers.insert(ACCEPT_RANGES, "bytes".parse().unwrap());
    let is_same = if_range.is_none_or(|its| its == etag);
    let start = seen
        .range
        .as_ref()
        .filter(|_| is_same && !matches!(trouble, Some(Trouble::NoParts)));
    let start: Option<usize> = start.map(|range| range["bytes=".len()..range.len() - 1].parse().unwrap());
    let all = if matches!(trouble, Some(Trouble::WrongBytes)) {
        Bytes::from(vec![1; bytes.len()])
    } else {
        bytes
    };
    let part = all.slice(start.unwrap_or(0)..);
    headers.insert(CONTENT_LENGTH, part.len().to_string().parse().unwrap());
    let status = match start {
        None => StatusCode::OK,
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", all.len() - 1, all.len());
            headers.insert(CONTENT_RANGE, range.parse().unwrap());
            StatusCode::PARTIAL_CONTENT
        }
    };
    let body = match trouble {
        Some(Trouble::BreakAfter(length)) => breaking(part.slice(..length.min(part.len()))),
        Some(Trouble::Status(_) | Trouble::WrongBytes | Trouble::NoParts | Trouble::Changed) | None => {
            Body::from(part)
        }
    };
    (status, headers, body).into_response()
}

/// A body that ends in the middle.
fn breaking(bytes: Bytes) -> Body {
    let pieces = [Ok(bytes), Err(std::io::Error::other("the connection breaks"))];
    // The bytes leave before the break does.
    let slowly = futures::stream::unfold(pieces.into_iter(), |mut pieces| async move {
        let piece = pieces.next()?;
        if piece.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        Some((piece, pieces))
    });
    Body::from_stream(slowly)
}

fn not_found(code: &'static str) -> Response {
    (StatusCode::NOT_FOUND, [("x-error-code", code)]).into_response()
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    crate::writer::hex(hasher)
}
