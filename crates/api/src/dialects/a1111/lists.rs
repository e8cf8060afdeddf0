//! What there is to choose from, in the shapes of the web UI. No call tells where a file is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pentimento_service::{ModelEntry, ModelKind};
use serde_json::{Value, json};

use super::auth::Caller;
use super::model_names::{plain_name, short_hash, title};
use crate::AppState;

fn of_kind(app: &AppState, kind: ModelKind) -> impl Iterator<Item = &Arc<ModelEntry>> {
    let entries = app.service.catalog().entries().iter();
    entries.filter(move |entry| entry.kind == kind)
}

pub(super) async fn sd_models(State(app): State<AppState>, _caller: Caller) -> Json<Value> {
    let model = |entry: &Arc<ModelEntry>| {
        json!({
            "title": title(entry),
            "model_name": plain_name(entry),
            "hash": short_hash(entry),
            "sha256": entry.sha256,
            "filename": entry.name,
            "config": null,
        })
    };
    Json(of_kind(&app, ModelKind::Checkpoint).map(model).collect())
}

pub(super) async fn sd_vae(State(app): State<AppState>, _caller: Caller) -> Json<Value> {
    let vae = |entry: &Arc<ModelEntry>| json!({"model_name": entry.name, "filename": entry.name});
    Json(of_kind(&app, ModelKind::Vae).map(vae).collect())
}

pub(super) async fn loras(State(app): State<AppState>, _caller: Caller) -> Json<Value> {
    let lora = |entry: &Arc<ModelEntry>| {
        json!({
            "name": plain_name(entry),
            "alias": entry.aliases.first().map_or_else(|| plain_name(entry), String::as_str),
            "path": entry.name,
            "metadata": {},
        })
    };
    Json(of_kind(&app, ModelKind::Lora).map(lora).collect())
}

/// All count as loaded: which fit is seen when a prompt has their words.
pub(super) async fn embeddings(State(app): State<AppState>, _caller: Caller) -> Json<Value> {
    let embedding = |entry: &Arc<ModelEntry>| {
        let about = json!({
            "step": null,
            "sd_checkpoint": null,
            "sd_checkpoint_name": null,
            "shape": null,
            "vectors": null,
        });
        (plain_name(entry).to_owned(), about)
    };
    let loaded: serde_json::Map<String, Value> = of_kind(&app, ModelKind::Embedding).map(embedding).collect();
    Json(json!({"loaded": loaded, "skipped": {}}))
}

/// The first one is the small network inside the binary.
pub(super) async fn upscalers(State(app): State<AppState>, _caller: Caller) -> Json<Value> {
    let upscaler = |name: &str| json!({"name": name, "model_name": name, "model_path": null, "model_url": null, "scale": 4});
    let of_catalogue = of_kind(&app, ModelKind::Upscaler).map(|entry| upscaler(&entry.name));
    Json(std::iter::once(upscaler("None")).chain(of_catalogue).collect())
}

/// What this server has none of.
pub(super) async fn nothing(_caller: Caller) -> Json<Value> {
    Json(json!([]))
}

pub(super) async fn no_scripts(_caller: Caller) -> Json<Value> {
    Json(json!({"txt2img": [], "img2img": []}))
}

pub(super) async fn no_flags(_caller: Caller) -> Json<Value> {
    Json(json!({}))
}

/// As A1111 answers where it cannot tell.
pub(super) async fn memory(_caller: Caller) -> Json<Value> {
    let untold = "GET /metrics tells the operator";
    Json(json!({"ram": {"error": untold}, "cuda": {"error": untold}}))
}

/// The catalogue is read when the server starts.
pub(super) async fn refreshed(_caller: Caller) -> Json<Value> {
    Json(Value::Null)
}
