//! `GET /metrics`: all numbers of the process, for Prometheus and whatever reads its formats.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::AppState;
use crate::admin::Operator;
use crate::metrics::{Format, Snapshot};

/// Where it is.
pub(crate) const PATH: &str = "/metrics";

/// For the listener of callers: the operator's keys open it.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route(PATH, get(metrics))
}

/// For the listener that callers cannot reach: programs that collect metrics rarely have a key.
pub(crate) fn routes_without_key() -> Router<AppState> {
    Router::new().route(PATH, get(metrics_without_key))
}

async fn metrics(state: State<AppState>, _operator: Operator, headers: HeaderMap) -> Response {
    metrics_without_key(state, headers).await
}

async fn metrics_without_key(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let status = app.service.status().await;
    let snapshot = Snapshot {
        status,
        queue_time: app.service.queue_time(),
        memory: &app.memory,
        lost_log_lines: app.lost_log_lines.load(Ordering::Relaxed),
        keys_are_stale: app.keys.is_stale(),
        started: app.started,
        process: (app.process)(),
    };
    let format = wanted(&headers);
    let page = app.metrics.page(&snapshot, format);
    ([(CONTENT_TYPE, format.content_type())], page).into_response()
}

/// OpenMetrics for whoever asks for it, and the older format, which everybody reads, for all others.
fn wanted(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT);
    let mut accepted = accepted.iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.contains("application/openmetrics-text")) {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}
