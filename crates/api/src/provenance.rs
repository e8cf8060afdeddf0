//! `POST /v1/provenance/verify`: what a file says of where its picture comes from.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use pentimento_service::image_codec::read_provenance;
use serde_json::json;

use crate::AppState;
use crate::admin::{Caller, edge_failure};
use crate::body::{self, BodyMemory, Sender};
use crate::edge_fault::EdgeFault;

/// One path under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/v1/provenance/verify", post(verify))
}

/// The body is the file; of what content type it says it is does not matter.
async fn verify(State(app): State<AppState>, _caller: Caller, request: Request) -> Response {
    match looked_at(&app, request).await {
        Ok(found) => Json(found).into_response(),
        Err(fault) => edge_failure(fault).into_response(),
    }
}

async fn looked_at(app: &AppState, request: Request) -> Result<serde_json::Value, EdgeFault> {
    let (parts, body) = request.into_parts();
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    let read = body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<_, EdgeFault>(())
    });
    let read = read.await?;
    let found = body::off_thread(move || Ok::<_, EdgeFault>(read_provenance(read.bytes()))).await?;
    Ok(json!({
        "generated": found.is_generated(),
        "digital_source_type": found.source_type,
        "parameters": found.parameters,
    }))
}
