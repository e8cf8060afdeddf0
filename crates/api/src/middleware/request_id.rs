//! Gives every call an id: the caller's own `x-request-id` when it is harmless, else a fresh one.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

/// The header, on the way in and out.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one call: 1 to 64 letters, digits, `-`, `_`, `.`.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn of(request: &Request) -> Self {
        let harmless = |id: &&str| {
            (1..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let given = request
            .headers()
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(harmless);
        Self(given.map_or_else(|| format!("req_{}", uuid::Uuid::now_v7().simple()), str::to_owned))
    }
}

/// Puts the id on the request, for the layers inside, and on the response.
pub(super) async fn attach(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
