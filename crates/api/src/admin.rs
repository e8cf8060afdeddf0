//! Our own calls at the root: the index, health and readiness; and the error shape of everything that is no dialect's.

use std::sync::atomic::Ordering;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use pentimento_service::ServiceError;
use pentimento_types::{ApiKeyId, ErrorKind, HasKind, describe_chain};
use serde_json::{Value, json};

use crate::access::{Denied, admit};
use crate::body::BodyError;
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;
use crate::{AppState, bearer};

/// Paths at the root.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// All calls in a line each, for programs.
pub(crate) async fn index() -> Json<Value> {
    Json(json!({
        "name": "pentimento",
        "version": env!("CARGO_PKG_VERSION"),
        "paths": {
            "GET /": "the playground, for browsers; for programs this list",
            "POST /v3/lcm-img2img": "image to image with a latent consistency model (Novita's call)",
            "POST /api/v1/enterprise/img2img": "image to image with any scheduler (ModelsLab's call, under all its paths)",
            "POST /api/v1/enterprise/inpaint": "the same within a mask",
            "POST /api/v1/enterprise/fetch/{id}": "a ModelsLab job by its number",
            "POST /v1/images/edits": "an image, changed by words, with or without a mask (OpenAI's call)",
            "POST /v1/images/generations": "an image from words alone (OpenAI's call)",
            "POST /v1/images/variations": "an image like another one (OpenAI's call)",
            "POST /sdapi/v1/img2img": "image to image by the call of AUTOMATIC1111's web UI, whose other calls are below /sdapi/v1 too",
            "POST /sdapi/v1/txt2img": "text to image by the same",
            "GET /v3/model": "models by their sd_name_in_api (also /v3/models, /v2/models)",
            "GET /v3/user": "always a million credits",
            "GET /v1/models": "models with their kinds and whether they can be used now (OpenAI's list, too)",
            "GET /v1/models/{name}": "one of them",
            "POST /v1/models/{name}/load": "brings a checkpoint into memory before a request needs it",
            "POST /v1/models/{name}/unload": "throws one out of memory, as far as no job uses it",
            "GET /v1/cluster": "the machines that share jobs with this one (operator's keys)",
            "GET /v1/webhooks": "the webhooks of your jobs, and what has become of them (?state=pending, delivered or dead)",
            "POST /v1/webhooks/{id}/replay": "sends one of them again, under the id that it had",
            "POST /v1/provenance/verify": "what the file in the body says of where its picture comes from",
            "GET /v1/jobs": "the jobs of your key, newest first (?state=…&limit=…&after=…)",
            "GET /v1/jobs/{id}": "a job of either dialect by its id: state, progress, time left, images",
            "DELETE /v1/jobs/{id}": "cancels a job that has not ended; with ?delete=true deletes it with its images",
            "GET /v1/jobs/{id}/events": "its progress and previews as server-sent events",
            "POST /mcp": "the Model Context Protocol, for agents",
            "GET /docs": "all calls with their fields, for people",
            "GET /openapi.json": "the same as OpenAPI 3.1; /openapi/novita.json and the others have a part of it",
            "GET /healthz": "200 as long as the process answers",
            "GET /metrics": "numbers for Prometheus",
            "GET /readyz": "200 as long as requests are served, be there room for one more or not, else 503 with the reason",
        },
    }))
}

/// Answers as long as the process can answer; says nothing about the engine.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(app): State<AppState>) -> Response {
    let status = app.service.status().await;
    let code = if status.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let reason = if status.ready {
        None
    } else if status.stopping {
        Some("the server is stopping")
    } else if let Some(reason) = status.outage {
        Some(reason)
    } else if !status.engine.healthy {
        Some("the device thread has ended; start the server again")
    } else {
        Some("the jobs cannot be read")
    };
    let body = json!({
        "ready": status.ready,
        "reason": reason,
        "stopping": status.stopping,
        "jobs": {"queued": status.jobs.queued, "running": status.jobs.running, "limit": status.jobs.limit},
        "engine": {"healthy": status.engine.healthy, "jobs": status.engine.jobs, "rows": status.engine.rows},
        "log": {"lost_lines": app.lost_log_lines.load(Ordering::Relaxed)},
    });
    (code, Json(body)).into_response()
}

/// A caller with a right key, or anybody when no keys are configured.
pub(crate) struct Caller(pub(crate) ApiKeyId);

/// A caller who may do what concerns all others.
pub(crate) struct Operator;

/// Why somebody is not one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyRefused {
    #[error("no API key; send the header `Authorization: Bearer <key>`")]
    Missing,
    #[error("the key is not one of this server's")]
    Wrong,
    #[error(
        "this call is the operator's, and the key is not; make one with `pentimento keys new LABEL --admin`"
    )]
    NotOperator,
    #[error(transparent)]
    Fault(EdgeFault),
}

impl From<Denied> for KeyRefused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::MissingKey => Self::Missing,
            Denied::WrongKey => Self::Wrong,
            Denied::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl IntoResponse for KeyRefused {
    fn into_response(self) -> Response {
        let kind = match self {
            // Whatever the key, it tells nobody who calls; OpenAI's clients, which ask for models here, expect that of it too.
            Self::Missing | Self::Wrong => ErrorKind::Unauthenticated,
            Self::NotOperator => ErrorKind::Forbidden,
            Self::Fault(fault) => return edge_failure(fault).into_response(),
        };
        own_failure((kind, status_for(kind)), self.to_string()).into_response()
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = KeyRefused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, KeyRefused> {
        let grant = admit(state, parts, bearer::secret(&parts.headers))?;
        Ok(Self(grant.owner))
    }
}

impl FromRequestParts<AppState> for Operator {
    type Rejection = KeyRefused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, KeyRefused> {
        let grant = admit(state, parts, bearer::secret(&parts.headers))?;
        grant.admin.then_some(Self).ok_or(KeyRefused::NotOperator)
    }
}

/// A failed call that belongs to no dialect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    /// As the service says.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The body did not arrive, or there is no room for it.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// What should name a webhook does not.
    #[error("a webhook is named by its id, msg_ and 32 hexadecimal digits, or by that of its job")]
    NoWebhookId,
    /// What stands in the path is no id.
    #[error("there is no such job; the id of one is `job_` and 32 hexadecimal digits")]
    NoJobId,
    /// Something behind the `?`.
    #[error("{name} {problem}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Completes a sentence that begins with it.
        problem: String,
    },
    /// As many connections as may watch jobs do.
    #[error(
        "as many callers watch jobs as may; ask for the job itself from time to time, or come back later"
    )]
    TooManyWatchers,
    /// One caller has half of them.
    #[error(
        "you watch as many jobs as one caller may; end some, or ask for the job itself from time to time"
    )]
    WatchesTooMany,
}

impl OwnError {
    fn kind(&self) -> ErrorKind {
        match self {
            // The name is part of the path here.
            Self::Service(ServiceError::ModelNotFound { .. }) | Self::NoJobId => ErrorKind::NotFound,
            Self::Service(error) => error.kind(),
            Self::Body(error) => error.kind(),
            Self::Parameter { .. } | Self::NoWebhookId => ErrorKind::InvalidInput,
            Self::TooManyWatchers | Self::WatchesTooMany => ErrorKind::Overloaded,
        }
    }
}

/// The one table from our kinds to our own statuses.
const fn status_for(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::RejectedContent => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict | ErrorKind::Cancelled => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::QuotaExceeded | ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // The same call fails again until somebody changes the files.
        ErrorKind::BadModel | ErrorKind::OutOfDeviceMemory | ErrorKind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for OwnError {
    fn into_response(self) -> Response {
        if let Self::Body(error) = self {
            return edge_failure(error.into()).into_response();
        }
        let kind = self.kind();
        let mut failure = own_failure((kind, status_for(kind)), self.to_string());
        if let Self::Service(error) = &self {
            failure.cause = Some(describe_chain(error));
            failure.retry_after(error.retry_after());
        }
        failure.into_response()
    }
}

/// A fault at the edge in our own shape.
pub(crate) fn edge_failure(fault: EdgeFault) -> Failure {
    let message = match fault {
        EdgeFault::UnknownPath => "there is nothing at this path".to_owned(),
        EdgeFault::WrongMethod
        | EdgeFault::Body(_)
        | EdgeFault::ForeignHost { .. }
        | EdgeFault::ForeignPage { .. }
        | EdgeFault::TooOften(_)
        | EdgeFault::Panicked { .. } => fault.to_string(),
    };
    let mut failure = own_failure((fault.kind(), fault.status()), message);
    failure.retry_after(fault.retry_after());
    failure.cause = fault.cause();
    failure
}

/// A failure in our own shape: `{"error": {"kind", "message", "request_id"}}`.
fn own_failure(answer: (ErrorKind, StatusCode), message: impl Into<String>) -> Failure {
    Failure::new(
        answer,
        answer.0.as_str(),
        message,
        |failure, request_id| json!({"error": {"kind": failure.code, "message": failure.message, "request_id": request_id}}),
    )
}
