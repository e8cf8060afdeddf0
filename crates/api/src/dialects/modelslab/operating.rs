//! The calls that act on the server: clearing the queue and the memory, and starting anew. What concerns all callers is for the
//! operator's keys.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Router, body::Body};
use pentimento_service::RateBucket;
use serde_json::{Value, json};

use super::error::ModelsLabError;
use super::opened_call::{OpenedCall, answer, open};
use crate::AppState;

/// Their paths under each prefix.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/clear_queue", post(clear_queue))
        .route("/clear_cache", post(clear_cache))
        .route("/restart_server", post(restart_server))
}

/// Cancels jobs that wait: all of them for the operator, else the caller's own. Upstream starts its server anew for that.
async fn clear_queue(State(app): State<AppState>, request: Request<Body>) -> Response {
    let cleared = async {
        let OpenedCall { grant, .. } = open(&app, request, RateBucket::Calls).await?;
        let owner = (!grant.admin).then_some(&grant.owner);
        let cancelled = app.service.clear_queue(owner).await?;
        Ok(json!({
            "status": "success",
            "message": format!("Queue cleared, {cancelled} waiting requests were cancelled"),
            // Not in the original.
            "cancelled": cancelled,
        }))
    };
    reply(&app, cleared.await)
}

/// Throws models out of memory that no job uses and that are not pinned; there is no other cache.
async fn clear_cache(State(app): State<AppState>, request: Request<Body>) -> Response {
    let cleared = async {
        operator(&app, request).await?;
        let cleared = app.service.clear_memory().await?;
        Ok(json!({
            "status": "success",
            "message": "Cache cleared successfully",
            // Not in the original: what it was.
            "models": cleared.models,
            "freed_bytes": cleared.freed_bytes,
        }))
    };
    reply(&app, cleared.await)
}

/// Asks for an end in order, and a new start. The answer is on its way before connections are closed.
async fn restart_server(State(app): State<AppState>, request: Request<Body>) -> Response {
    let asked = async {
        operator(&app, request).await?;
        if !app.restart.ask() {
            return Err(ModelsLabError::NotOffered {
                call: "restart_server".to_owned(),
                instead: "it is no server that would start again, stop it by hand",
            });
        }
        tracing::warn!("a call of the operator asks for a restart");
        Ok(json!({"message": "server restarting", "status": "success"}))
    };
    reply(&app, asked.await)
}

/// A call whose key may do what concerns all callers.
async fn operator(app: &AppState, request: Request<Body>) -> Result<(), ModelsLabError> {
    let call = open(app, request, RateBucket::Calls).await?;
    call.grant.admin.then_some(()).ok_or(ModelsLabError::NotOperator)
}

fn reply(app: &AppState, result: Result<Value, ModelsLabError>) -> Response {
    answer(app, result.map(|reply| Json(reply).into_response()))
}
