//! Writes the body of a failed call and logs it, once, with its kind; no handler does either.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::middleware::Next;
use axum::response::Response;
use pentimento_types::ErrorKind;

use super::request_id::RequestId;
use crate::failure::Failure;

/// Replaces the empty body of a [`Failure`] by the dialect's, with the request id in it.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let id = id.as_ref().map(RequestId::as_str).unwrap_or_default();
    let mut response = next.run(request).await;
    let Some(failure) = response.extensions_mut().remove::<Arc<Failure>>() else {
        return response;
    };
    log(&failure);
    // For whoever counts them outside.
    response.extensions_mut().insert(failure.kind);
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = failure
        .retry_after_s
        .filter(|_| matches!(failure.status.as_u16(), 429 | 503))
    {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    *response.body_mut() = Body::from((failure.shape)(&failure, id).to_string());
    response
}

fn log(failure: &Failure) {
    let (kind, code) = (failure.kind.as_str(), failure.code);
    let text = failure.cause.as_deref().unwrap_or(&failure.message);
    // A dialect may answer a fault of ours with status 200.
    if failure.status.is_server_error() || failure.kind == ErrorKind::Internal {
        tracing::error!(
            kind,
            code,
            status = failure.status.as_u16(),
            "call failed: {text}"
        );
    } else {
        tracing::info!(
            kind,
            code,
            status = failure.status.as_u16(),
            "call refused: {text}"
        );
    }
}
