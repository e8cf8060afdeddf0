//! `GET` and `HEAD /files/…`: a finished image by its signed link. No key is needed; the signature is the right. Where images
//! are in a bucket that callers can reach, they are sent on to it.

use std::borrow::Cow;
use std::ops::Range;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION,
    RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pentimento_service::{Access, LinkedFile};

use crate::AppState;
use crate::access::admit_link;
use crate::admin::{OwnError, edge_failure};
use crate::range::{Wanted, wanted};

/// Where links begin.
const FOLDER: &str = "files";

/// Behind the `?` of who may not be sent on, as the playground, whose policy lets it ask this server alone.
const HERE: &str = "here";

/// The path of the links.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/files/{*key}", get(file))
}

/// A path as it may be logged: of a link only the picture's name, since whoever has the signature has the picture.
pub(crate) fn without_signature(path: &str) -> Cow<'_, str> {
    // Doubled slashes are tidied further inside.
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    if parts.next() != Some(FOLDER) {
        return path.into();
    }
    let name = parts.next_back().unwrap_or_default();
    format!("/{FOLDER}/…/{name}").into()
}

async fn file(
    State(app): State<AppState>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, OwnError> {
    if let Err(fault) = admit_link(&app, request.extensions(), &headers) {
        return Ok(edge_failure(fault).into_response());
    }
    let path = request.uri().path();
    let access = match *request.method() {
        Method::HEAD => Access::Look,
        _ => Access::Read,
    };
    let elsewhere = if request.uri().query() == Some(HERE) {
        None
    } else {
        app.service.link_elsewhere(path, access).await?
    };
    if let Some(address) = elsewhere {
        // Another one each time, and of less life than the link.
        let headers = [(LOCATION, address), (CACHE_CONTROL, "no-store".to_owned())];
        return Ok((StatusCode::FOUND, headers).into_response());
    }
    let file = app.service.open_link(path).await?;
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, about_part, part) = part(file.size, range);
    // Who only looks costs no memory, and who wants a part no more than that.
    let bytes = match access {
        Access::Look => Bytes::new(),
        Access::Read => app.service.read_linked(&file, part).await?,
    };
    Ok((status, file_headers(&file), about_part, Body::from(bytes)).into_response())
}

fn file_headers(file: &LinkedFile) -> HeaderMap {
    let name = file.key.as_str().rsplit('/').next().unwrap_or_default();
    let disposition = HeaderValue::from_str(&format!("inline; filename=\"{name}\""));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(file.content_type)),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        // A key is never written twice, but a link dies; so a cache may keep it for itself only.
        (
            CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=3600, immutable"),
        ),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let disposition = disposition.ok().map(|value| (CONTENT_DISPOSITION, value));
    headers.into_iter().chain(disposition).collect()
}

/// The status of the reply, its headers about the part that is sent, and that part.
fn part(size: u64, range: Option<&str>) -> (StatusCode, HeaderMap, Range<u64>) {
    let (status, place, part) = match wanted(range, size) {
        Wanted::Whole => (StatusCode::OK, None, 0..size),
        Wanted::Part(first, end) => {
            let place = format!("bytes {first}-{}/{size}", end.saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, Some(place), first..end)
        }
        Wanted::Beyond => {
            let place = format!("bytes */{size}");
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(place), 0..0)
        }
    };
    let length = HeaderValue::from(part.end.saturating_sub(part.start));
    let place = place.and_then(|place| HeaderValue::from_str(&place).ok());
    let headers = place
        .map(|place| (CONTENT_RANGE, place))
        .into_iter()
        .chain([(CONTENT_LENGTH, length)])
        .collect();
    (status, headers, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_signature_is_logged() {
        for (path, logged) in [
            ("/files/1700000000/00ff/generations/a-0.png", "/files/…/a-0.png"),
            ("//files//1700000000/00ff/a.png/", "/files/…/a.png"),
            ("/files", "/files/…/"),
            ("/filesystem/x", "/filesystem/x"),
            ("/v3/model", "/v3/model"),
        ] {
            assert_eq!(without_signature(path), logged, "{path}");
        }
    }
}
