//! `POST /v1/provenance/verify`: what a file says of where its picture comes from.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use pentimento_service::image_codec::Provenance;
use serde_json::json;

use crate::AppState;
use crate::admin::{Caller, OwnError, edge_failure};
use crate::body::{self, BodyMemory, Sender};
use crate::edge_fault::EdgeFault;

/// One path under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/v1/provenance/verify", post(verify))
}

/// The body is the file; of what content type it says it is does not matter.
async fn verify(State(app): State<AppState>, Caller(owner): Caller, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (file, memory) = match received(&app, &parts, body).await {
        Ok(received) => received,
        Err(fault) => return edge_failure(fault).into_response(),
    };
    let found = app.service.provenance_of(&owner, file, Box::new(memory)).await;
    match found {
        Ok(found) => Json(written(&found)).into_response(),
        Err(error) => OwnError::from(error).into_response(),
    }
}

/// The file, and what it holds of the memory for bodies.
async fn received(app: &AppState, parts: &Parts, body: Body) -> Result<(Bytes, BodyMemory), EdgeFault> {
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    let read = body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<_, EdgeFault>(())
    });
    Ok(read.await?.with_room(0)?)
}

fn written(found: &Provenance) -> serde_json::Value {
    json!({
        "generated": found.is_generated(),
        "digital_source_type": found.source_type,
        "parameters": found.parameters,
        "content_credentials": found.manifest,
        "watermark": found.watermark,
    })
}
