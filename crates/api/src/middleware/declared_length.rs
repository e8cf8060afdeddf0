//! Refuses a body by its declared length, before the caller has sent it (curl waits for this with `Expect`).

use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::body::BodyError;
use crate::shape::Shape;

/// `limit` in bytes. A length that is no number is refused by the HTTP library before it comes here.
pub(super) async fn check(State(limit): State<usize>, request: Request, next: Next) -> Response {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|value| value.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        let shape = Shape::of(request.uri().path());
        return shape
            .failure(BodyError::TooLarge { limit }.into())
            .into_response();
    }
    next.run(request).await
}
