//! Our own calls about models: the list, which is OpenAI's list as well, one of them, and bringing them into memory.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use pentimento_service::{
    CatalogError, DeviceUse, ModelEntry, ModelKind, ModelRole, ModelState, ServiceError,
};
use pentimento_types::{MemoryUse, ModelId};
use serde_json::{Value, json};

use crate::AppState;
use crate::admin::{Caller, Operator, OwnError};

/// Paths under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route("/v1/models/{name}/load", post(load))
        .route("/v1/models/{name}/unload", post(unload))
}

/// `models` is everything that a request can name; `data` is what OpenAI's clients look for models in: checkpoints alone, since
/// they offer all of it as the `model` of a call.
async fn models(State(app): State<AppState>, _caller: Caller) -> Json<Value> {
    let models = described(&app).await;
    let data: Vec<Value> = models
        .iter()
        .filter(|model| model["kind"] == ModelKind::Checkpoint.as_str())
        .map(|model| as_openais(&app, model.clone()))
        .collect();
    let weights = json!({
        "held_bytes": app.memory.held(MemoryUse::Weights),
        "limit_bytes": app.memory.limit(MemoryUse::Weights),
    });
    let devices: Vec<Value> = app.service.devices().iter().map(device).collect();
    Json(json!({
        "object": "list",
        "data": data,
        "models": models,
        "memory": {"weights": weights},
        "device": devices.first(),
        "devices": devices,
    }))
}

/// What computes. A name of a GPU is its maker's.
fn device(used: &DeviceUse) -> Value {
    let DeviceUse {
        report,
        jobs,
        resident_models,
    } = used;
    let mut device = json!({
        "name": report.name,
        "precision": report.precision.to_string(),
        "jobs": jobs,
        "resident_models": resident_models,
    });
    if let Some(gpu) = &report.gpu {
        let (major, minor) = gpu.capability;
        device["gpu"] = json!({
            "capability": format!("{major}.{minor}"),
            "software": gpu.software,
            "memory_bytes": gpu.memory_bytes,
            "limit_bytes": gpu.budget_bytes,
            "held_bytes": gpu.used_bytes,
            "plans": gpu.plans,
        });
    }
    device
}

/// Everything that a request can name, and whether it can now.
pub(crate) async fn described(app: &AppState) -> Vec<Value> {
    describe_all(app, app.service.catalog().entries()).await
}

async fn describe_all(app: &AppState, entries: &[Arc<ModelEntry>]) -> Vec<Value> {
    let resident = app.service.status().await.engine.resident_models;
    let states = app.service.model_states(entries).await;
    states
        .iter()
        .map(|(entry, state)| {
            let mut described = describe(entry, state, &resident);
            if entry.kind == ModelKind::Checkpoint {
                described["precision"] = app.service.precision(entry).to_string().into();
            }
            described
        })
        .collect()
}

/// A checkpoint by any of its names, or what else has the name.
async fn model(
    State(app): State<AppState>,
    _caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, OwnError> {
    let catalog = app.service.catalog();
    let id = ModelId::new(name);
    let of_kind = |kind| catalog.resolve(&id, kind);
    let entry = of_kind(ModelKind::Checkpoint).or_else(|error| {
        let mut others = ModelKind::ALL.iter().filter_map(|kind| of_kind(*kind).ok());
        others.next().ok_or_else(|| not_found(error))
    })?;
    let described = describe_all(&app, &[entry]).await.pop().unwrap_or_default();
    Ok(Json(as_openais(&app, described)))
}

fn not_found(error: CatalogError) -> ServiceError {
    if let CatalogError::NotFound { name, nearest, .. } = error {
        let role = ModelRole::Checkpoint;
        ServiceError::ModelNotFound { role, name, nearest }
    } else {
        ServiceError::Internal {
            source: Box::new(error),
        }
    }
}

/// Answers when the model is in memory.
async fn load(
    State(app): State<AppState>,
    _operator: Operator,
    Path(name): Path<String>,
) -> Result<Json<Value>, OwnError> {
    app.service.load_model(&ModelId::new(name.as_str())).await?;
    Ok(Json(json!({"name": name, "in_memory": true})))
}

async fn unload(
    State(app): State<AppState>,
    _operator: Operator,
    Path(name): Path<String>,
) -> Result<Json<Value>, OwnError> {
    let freed = app.service.unload_model(&ModelId::new(name.as_str())).await?;
    Ok(Json(json!({"name": name, "freed_bytes": freed})))
}

fn describe(entry: &ModelEntry, state: &ModelState, resident: &[String]) -> Value {
    let progress = if let ModelState::Pending(progress) = state {
        json!({
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "bytes_per_second": progress.bytes_per_second,
        })
    } else {
        Value::Null
    };
    json!({
        "name": entry.name,
        "aliases": entry.aliases,
        "kind": entry.kind.as_str(),
        "base": entry.base.map(|base| base.as_str()),
        "state": state.as_str(),
        "progress": progress,
        "available": state.is_available(),
        "unavailable_because": state.reason(),
        "in_memory": entry.kind == ModelKind::Checkpoint && resident.contains(&entry.name),
    })
}

/// With the members that OpenAI's clients read. Nobody knows when a model was made; it is here since the server started.
fn as_openais(app: &AppState, mut described: Value) -> Value {
    let since = app.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    described["id"] = described["name"].clone();
    described["object"] = "model".into();
    described["created"] = since.as_secs().into();
    described["owned_by"] = "pentimento".into();
    described
}
