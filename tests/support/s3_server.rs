//! A bucket on this machine that speaks enough of S3, keeps everything in memory, and has trouble when a test wants it.
//!
//! It checks that a call is signed and not by whom; a real server of S3 is beside it in `tests/images_s3.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::net::TcpListener;

pub(crate) const BUCKET: &str = "pictures";

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// 503 with the code `SlowDown`.
    SlowDown,
    /// 403, as for a wrong clock.
    Refused,
    /// No answer for a long time.
    Silent,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    content_type: String,
}

#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Object>>,
    /// For calls whose method and key fit, one after the other.
    troubles: Mutex<VecDeque<(Method, &'static str, Trouble)>>,
}

/// A running one.
#[derive(Debug)]
pub(crate) struct S3Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl S3Server {
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// At an address that is free.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared::default());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this goes wrong, each once, with calls whose key contains the text.
    pub(crate) fn trouble(&self, method: &Method, key: &'static str, troubles: &[Trouble]) {
        let troubles = troubles.iter().map(|trouble| (method.clone(), key, *trouble));
        self.shared.troubles.lock().unwrap().extend(troubles);
    }

    /// Whether all of it has happened.
    pub(crate) fn is_calm(&self) -> bool {
        self.shared.troubles.lock().unwrap().is_empty()
    }

    /// Whatever has not happened will not.
    pub(crate) fn calm(&self) {
        self.shared.troubles.lock().unwrap().clear();
    }

    /// The names of all objects, with what they say they are.
    pub(crate) fn objects(&self) -> Vec<(String, String)> {
        let objects = self.shared.objects.lock().unwrap();
        let about = |(key, object): (&String, &Object)| (key.clone(), object.content_type.clone());
        objects.iter().map(about).collect()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let path = parts.uri.path().to_owned();
    let is_signed = parts.headers.contains_key("authorization") || query.contains("X-Amz-Signature=");
    if !is_signed {
        return fault(StatusCode::FORBIDDEN, "AccessDenied");
    }
    let Some(key) = path.strip_prefix(&format!("/{BUCKET}")) else {
        return fault(StatusCode::NOT_FOUND, "NoSuchBucket");
    };
    let key = key.trim_start_matches('/').to_owned();
    match trouble_of(&shared, &parts.method, &key) {
        Some(Trouble::SlowDown) => return fault(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Some(Trouble::Refused) => return fault(StatusCode::FORBIDDEN, "RequestTimeTooSkewed"),
        Some(Trouble::Silent) => tokio::time::sleep(Duration::from_secs(3600)).await,
        None => {}
    }
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match parts.method {
        Method::PUT => {
            let content_type = parts.headers.get("content-type");
            let content_type = content_type
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let object = Object {
                bytes,
                content_type: content_type.to_owned(),
            };
            shared.objects.lock().unwrap().insert(key, object);
            [("etag", "\"1\"")].into_response()
        }
        Method::DELETE => {
            shared.objects.lock().unwrap().remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        Method::GET if key.is_empty() => list(&shared, &query),
        Method::GET | Method::HEAD => {
            let found = shared.objects.lock().unwrap().get(&key).cloned();
            found.map_or_else(
                || fault(StatusCode::NOT_FOUND, "NoSuchKey"),
                |object| part(&object, &parts.headers),
            )
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// The first that is meant for this call.
fn trouble_of(shared: &Shared, method: &Method, key: &str) -> Option<Trouble> {
    let mut troubles = shared.troubles.lock().unwrap();
    let at = troubles
        .iter()
        .position(|(of_method, of_key, _)| of_method == method && key.contains(of_key))?;
    troubles.remove(at).map(|(_, _, trouble)| trouble)
}

fn part(object: &Object, headers: &HeaderMap) -> Response {
    let about = [
        ("etag", "\"1\"".to_owned()),
        ("last-modified", "Sun, 29 Nov 2026 12:00:00 GMT".to_owned()),
        ("content-type", object.content_type.clone()),
    ];
    let range = headers.get("range").and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let ends = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1)));
    match ends {
        Some((first, end)) => {
            let place = format!("bytes {first}-{}/{}", end - 1, object.bytes.len());
            let bytes = object.bytes.slice(first..end);
            (
                StatusCode::PARTIAL_CONTENT,
                about,
                [("content-range", place)],
                bytes,
            )
                .into_response()
        }
        None => (about, object.bytes.clone()).into_response(),
    }
}

fn list(shared: &Shared, query: &str) -> Response {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="))
        .unwrap_or_default()
        .replace("%2F", "/");
    let objects = shared.objects.lock().unwrap();
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, object)| {
            let size = object.bytes.len();
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-29T12:00:00.000Z</LastModified><ETag>1</ETag><Size>{size}</Size></Contents>"
            )
        })
        .collect();
    let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>");
    ([("content-type", "application/xml")], Body::from(body)).into_response()
}

fn fault(status: StatusCode, code: &str) -> Response {
    let body = format!("<Error><Code>{code}</Code><Message>as a test wanted</Message></Error>");
    (status, [("content-type", "application/xml")], body).into_response()
}
