//! Our own calls about jobs, whichever dialect they came through: list, look, cancel, delete, and watch.
//!
//! Invariant: a caller meets only the jobs of its own key; those of others are as unknown as none.

mod events;
mod query;
mod wire;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::get;
use axum::{Json, Router};
use pentimento_service::Service;
use pentimento_types::{Job, JobId};
use serde_json::{Value, json};

use crate::AppState;
use crate::admin::{Caller, OwnError};
use crate::base_url::BaseUrl;
use query::{DeleteQuery, ListQuery};

/// In which replies of the dialects the id of the job stands.
pub(crate) const JOB_ID: HeaderName = HeaderName::from_static("x-job-id");

/// Paths below `/v1/jobs`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/jobs", get(list))
        .route("/v1/jobs/{id}", get(show).delete(cancel))
        .route("/v1/jobs/{id}/events", get(events::events))
}

/// The header that says under which id a job can be looked at here.
pub(crate) fn id_header(id: JobId) -> HeaderMap {
    let value = HeaderValue::from_str(&id.to_string());
    value.ok().map(|value| (JOB_ID, value)).into_iter().collect()
}

/// All that our own calls say of a job.
pub(crate) fn described(service: &Service, base: &BaseUrl, job: &Job) -> Value {
    wire::whole(service, base, job)
}

async fn list(
    State(app): State<AppState>,
    Caller(owner): Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, OwnError> {
    let ListQuery { states, after, limit } = ListQuery::parse(query.as_deref())?;
    let page = app.service.list_own(&owner, states, (after, limit)).await?;
    let jobs = wire::list(&app.service, &base, &page.jobs);
    let next = page.jobs.last().filter(|_| page.has_more);
    Ok(Json(
        json!({"jobs": jobs, "next": next.map(|job| job.id.to_string())}),
    ))
}

async fn show(
    State(app): State<AppState>,
    Caller(owner): Caller,
    base: BaseUrl,
    Path(id): Path<String>,
) -> Result<Json<Value>, OwnError> {
    let job = app.service.fetch_own(&owner, parsed(&id)?).await?;
    Ok(Json(wire::whole(&app.service, &base, &job)))
}

async fn cancel(
    State(app): State<AppState>,
    Caller(owner): Caller,
    base: BaseUrl,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, OwnError> {
    let id = parsed(&id)?;
    if DeleteQuery::parse(query.as_deref())?.delete {
        app.service.delete_own(&owner, id).await?;
        return Ok(Json(json!({"id": id.to_string(), "deleted": true})));
    }
    let job = app.service.cancel_own(&owner, id).await?;
    Ok(Json(wire::whole(&app.service, &base, &job)))
}

/// What is no id of ours can be no job's.
fn parsed(id: &str) -> Result<JobId, OwnError> {
    id.parse().map_err(|_| OwnError::NoJobId)
}
