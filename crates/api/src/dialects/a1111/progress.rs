//! `progress`, `interrupt` and `skip`: about the caller's own jobs of this door, and nobody else's.

use axum::Json;
use axum::extract::{RawQuery, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use pentimento_service::ServiceError;
use pentimento_types::{ApiKeyId, Job, JobState, Progress};
use serde_json::{Value, json};

use super::NAME;
use super::auth::Caller;
use super::error::A1111Error;
use crate::AppState;

/// Unfinished jobs that are looked at together.
const PAGE: usize = 200;

pub(super) async fn progress(
    State(app): State<AppState>,
    Caller(owner): Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, A1111Error> {
    let query = query.unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let skips_image = pairs.any(|(name, value)| {
        name == "skip_current_image"
            && matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
    });
    let jobs = unfinished(&app, &owner).await?;
    let Some(current) = jobs.first() else {
        return Ok(Json(state_of(None, &jobs, Progress::default())));
    };
    let progress = app.service.progress(current.id).unwrap_or_default();
    let mut state = state_of(Some(current), &jobs, progress);
    let left = app.service.time_left(current.id);
    state["eta_relative"] = json!(left.unwrap_or_default().as_secs_f64());
    if !skips_image && current.state == JobState::Running {
        let preview = app.a1111_previews.of(&app.service, (&owner, current.id));
        state["current_image"] = json!(preview.map(|preview| STANDARD.encode(&preview.file)));
    }
    Ok(Json(state))
}

/// Ends all of the caller's jobs, of a call that became several jobs as well.
pub(super) async fn interrupt(
    State(app): State<AppState>,
    Caller(owner): Caller,
) -> Result<Json<Value>, A1111Error> {
    // Before the look: what is stored later sees it.
    app.a1111_interrupts.interrupt(&owner);
    for job in unfinished(&app, &owner).await? {
        cancel(&app, &job).await?;
    }
    Ok(Json(json!({})))
}

/// Ends the job that is being made.
pub(super) async fn skip(
    State(app): State<AppState>,
    Caller(owner): Caller,
) -> Result<Json<Value>, A1111Error> {
    if let Some(job) = unfinished(&app, &owner).await?.first() {
        cancel(&app, job).await?;
    }
    Ok(Json(Value::Null))
}

async fn cancel(app: &AppState, job: &Job) -> Result<(), A1111Error> {
    match app.service.cancel(job.id).await {
        // It has ended by itself, or was forgotten.
        Ok(_) | Err(ServiceError::JobEnded { .. } | ServiceError::JobNotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Those that run before those that wait, the oldest first.
async fn unfinished(app: &AppState, owner: &ApiKeyId) -> Result<Vec<Job>, A1111Error> {
    let states = || vec![JobState::Fetching, JobState::Queued, JobState::Running];
    let (mut jobs, mut after) = (Vec::new(), None);
    loop {
        // Those of other doors are among them.
        let page = app.service.list_own(owner, states(), (after, PAGE)).await?;
        after = page.jobs.last().map(|job| job.id);
        jobs.extend(page.jobs.into_iter().filter(|job| job.dialect.name == NAME));
        if !page.has_more {
            break;
        }
    }
    jobs.sort_by_key(|job| (job.state != JobState::Running, job.created_at, job.id));
    Ok(jobs)
}

/// As A1111's `State.dict`; steps are evaluations, over all images of a job.
fn state_of(current: Option<&Job>, jobs: &[Job], progress: Progress) -> Value {
    /// As there, so that who waits for 0 waits for the end.
    const BEGUN: f64 = 0.01;
    let call = current
        .and_then(|job| job.dialect.note.as_deref())
        .unwrap_or_default();
    let share = f64::from(progress.done) / f64::from(progress.total.max(1));
    json!({
        "progress": if current.is_some() { (BEGUN + share).min(1.0) } else { 0.0 },
        "eta_relative": 0.0,
        "state": {
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": if current.is_some() { format!("scripts_{call}") } else { String::new() },
            "job_count": jobs.len(),
            "job_timestamp": current.map_or_else(|| "0".to_owned(), |job| {
                DateTime::<Utc>::from(job.created_at).format("%Y%m%d%H%M%S").to_string()
            }),
            "job_no": 0,
            "sampling_step": progress.done,
            "sampling_steps": progress.total,
        },
        "current_image": null,
        "textinfo": null,
    })
}
