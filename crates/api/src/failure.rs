//! A failed call on its way out: what the caller may read, and what only the log may.
//!
//! A dialect decides status, code and body shape; the request id is added, and the failure logged, in one place
//! (`middleware::failures`), so no handler does either.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pentimento_types::ErrorKind;
use serde_json::Value;

/// One failed call.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What kind of failure, for the log and the counters.
    pub(crate) kind: ErrorKind,
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The dialect's word for it; has a page in `docs/errors`.
    pub(crate) code: &'static str,
    /// Safe to show: no paths, no panic text.
    pub(crate) message: String,
    /// The field of the request that is at fault.
    pub(crate) field: Option<String>,
    /// What the dialect's body says beyond that, where the message alone cannot.
    pub(crate) details: Option<Value>,
    /// The whole chain of causes, for the log only.
    pub(crate) cause: Option<String>,
    /// Seconds after which the same call may work.
    pub(crate) retry_after_s: Option<u32>,
    /// Writes the body in the dialect's shape; the second argument is the request id.
    pub(crate) shape: fn(&Self, &str) -> Value,
}

impl Failure {
    /// A failure without field, cause or retry hint.
    pub(crate) fn new(
        (kind, status): (ErrorKind, StatusCode),
        code: &'static str,
        message: impl Into<String>,
        shape: fn(&Self, &str) -> Value,
    ) -> Self {
        Self {
            kind,
            status,
            code,
            message: message.into(),
            field: None,
            details: None,
            cause: None,
            retry_after_s: kind.is_retryable().then_some(2),
            shape,
        }
    }

    /// Says when the same call may work, where that is known better than for any other.
    pub(crate) fn retry_after(&mut self, time: Option<Duration>) {
        if let Some(time) = time {
            self.retry_after_s = Some(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        // RFC 9110, section 15.5.2. A dialect whose clients have another way puts that in its place.
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
