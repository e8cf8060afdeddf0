//! What is answered for a job: its pictures, that it is still running, or why it failed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pentimento_service::{ServiceError, finished_images};
use pentimento_types::{Clock as _, Job, Progress, SystemClock};
use serde_json::{Value, json};

use super::error::ModelsLabError;
use super::note::Note;
use crate::AppState;
use crate::base_url::BaseUrl;

/// The reply for a job in whatever state it is.
pub(super) async fn of(app: &AppState, base: &BaseUrl, job: &Job) -> Result<Value, ModelsLabError> {
    let note = Note::of(job);
    let links = links(app, base, job);
    if !job.state.is_final() {
        return Ok(processing(app, base, job, note, links));
    }
    let pictures = finished_images(job).map_err(|failure| ModelsLabError::JobFailed {
        number: note.number,
        failure,
    })?;
    let mut output = links.clone();
    if job.delivery.base64 && app.config.modelslab.inline_base64 {
        output.clear();
        for picture in pictures {
            output.push(STANDARD.encode(app.service.picture(picture).await?));
        }
    }
    let took = job
        .finished_at
        .and_then(|end| end.duration_since(job.started_at?).ok())
        .unwrap_or_default();
    let mut reply = json!({
        "status": "success",
        "generationTime": took.as_secs_f64(),
        "id": note.number,
        "output": output,
        "proxy_links": links,
        "future_links": links,
        "image_links": links,
        // Not false: nothing has looked.
        "nsfw_content_detected": null,
        "webhook_status": "",
        "meta": meta(job, &note),
    });
    if let Some(warning) = warning(job, note) {
        reply["warning"] = warning.into();
    }
    Ok(reply)
}

fn processing(app: &AppState, base: &BaseUrl, job: &Job, note: Note, links: Vec<String>) -> Value {
    const MESSAGE: &str = "Try to fetch request after seconds estimated";
    let mut reply = json!({
        "status": "processing",
        "tip": "Your request is processing in background, you can get this image by calling the fetch_result address",
        "eta": eta_seconds(job, app.service.progress(job.id)),
        "messege": MESSAGE,
        "message": MESSAGE,
        "webhook_status": "",
        "fetch_result": base.join(&format!("/api/v1/enterprise/fetch/{}", note.number)),
        "id": note.number,
        "output": [],
        "image_links": links,
        "future_links": links,
        "meta": meta(job, &note),
    });
    if let Some(warning) = warning(job, note) {
        reply["warning"] = warning.into();
    }
    reply
}

/// What had no effect, and how the images were read where that is not plain.
fn warning(job: &Job, note: Note) -> Option<String> {
    let notes = job.notes.iter().map(ToString::to_string);
    let sentences: Vec<String> = note.warning.into_iter().chain(notes).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// One address for each picture, the same before and after it is made.
fn links(app: &AppState, base: &BaseUrl, job: &Job) -> Vec<String> {
    let life = job.delivery.link_life.unwrap_or(app.config.modelslab.link_life);
    (0..job.recipe.image_count)
        .map(|index| {
            base.join(&if job.delivery.base64 {
                app.service.lasting_text_link(job, index, life)
            } else {
                app.service.lasting_link(job, index, life)
            })
        })
        .collect()
}

fn meta(job: &Job, note: &Note) -> Value {
    let mut meta = note.meta.clone();
    meta.insert("file_prefix".to_owned(), job.id.as_uuid().to_string().into());
    meta.insert("id".to_owned(), note.number.to_string().into());
    Value::Object(meta)
}

/// From what has been done so far; clients sleep exactly this long, so it is never zero.
fn eta_seconds(job: &Job, progress: Option<Progress>) -> u64 {
    const UNKNOWN: Duration = Duration::from_secs(10);
    let elapsed = SystemClock
        .wall()
        .duration_since(job.started_at.unwrap_or(job.created_at))
        .unwrap_or_default();
    let Progress { done, total } = progress.unwrap_or_default();
    let left = if done == 0 {
        UNKNOWN
    } else {
        elapsed / done * total.saturating_sub(done)
    };
    left.as_secs() + 1
}

/// What a caller may see of a job that failed in the meantime, or was never there.
pub(super) fn unknown(error: ServiceError) -> ModelsLabError {
    if matches!(error, ServiceError::JobNotFound { .. }) {
        ModelsLabError::UnknownJob
    } else {
        error.into()
    }
}
