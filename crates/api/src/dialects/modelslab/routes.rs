//! The paths of this dialect, under every prefix that a client is known to use.

use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use pentimento_service::{InputLimits, ModelKind, Submission};
use pentimento_types::{ApiKeyId, Delivery, DialectTag};
use serde_json::Value;

use super::convert::{self, Call, Defaults};
use super::error::ModelsLabError;
use super::reader::MAX_IMAGE_BYTES;
use super::{auth, management, reply, wire};
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::body;
use crate::dialects::ignored_header;
use crate::dialects::json::{self, Fields};
use crate::dialects::lenient::{Refusal, name};

/// The vendor's documentation, then its SDKs (`images`, `realtime`, `community`), an old package (`txt2img`), the
/// non-enterprise mode, and base addresses without `/api`.
const PREFIXES: &[&str] = &[
    "/api/v1/enterprise",
    "/api/v1/enterprise/images",
    "/api/v1/enterprise/txt2img",
    "/api/v1/enterprise/realtime",
    "/api/v1/enterprise/community",
    "/api/v6/images",
    "/api/v6/realtime",
    "/v1/enterprise",
    "/v1/enterprise/images",
    "/v6/images",
];

/// Nothing is documented; twice the side of the other vendor.
const LIMITS: InputLimits = InputLimits {
    max_side: 4096,
    max_bytes: MAX_IMAGE_BYTES as u64,
};

/// All paths of this dialect.
pub(crate) fn routes() -> Router<AppState> {
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router.nest(prefix, calls());
    }
    router
}

fn calls() -> Router<AppState> {
    let mut router = Router::new()
        .route("/img2img", post(img2img))
        .route("/inpaint", post(inpaint))
        .route("/fetch", any(fetch))
        .route("/fetch/{id}", any(fetch_by_path))
        .route("/system_details", any(system_details))
        .route("/schedulers_list", any(schedulers_list))
        .route("/get_all_models", any(get_all_models))
        .route("/verify_model", any(verify_model));
    for (call, instead) in management::NOT_OFFERED {
        let refuse = move |State(app): State<AppState>| async move {
            let error = ModelsLabError::NotOffered {
                call: (*call).to_owned(),
                instead,
            };
            answer(&app, Err(error))
        };
        router = router.route(&format!("/{call}"), any(refuse));
    }
    router
}

async fn img2img(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let made = generate(&app, &base, request, Call::Img2Img).await;
    answer(&app, made)
}

async fn inpaint(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let made = generate(&app, &base, request, Call::Inpaint).await;
    answer(&app, made)
}

/// The only place that knows which statuses errors have.
fn answer(app: &AppState, result: Result<Response, ModelsLabError>) -> Response {
    let strict = app.config.modelslab.strict_http_status;
    result.unwrap_or_else(|error| error.failure(strict).into_response())
}

/// Reads the body and asks for the key: every call begins here.
async fn open(app: &AppState, request: Request) -> Result<(ApiKeyId, Fields, Parts), ModelsLabError> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config).await?;
    let mut fields = wire::fields(parts.clone(), bytes).await?;
    let caller = auth::caller(app, fields.take("key"), &parts.headers, parts.uri.query())?;
    Ok((caller, fields, parts))
}

async fn generate(
    app: &AppState,
    base: &BaseUrl,
    request: Request,
    call: Call,
) -> Result<Response, ModelsLabError> {
    let (owner, fields, _) = open(app, request).await?;
    let defaults = Defaults {
        model: default_model(app),
        seed: random_seed(),
    };
    let wish = body::off_thread(move || convert::to_wish(fields, call, defaults)).await;
    let mut wish = wish.map_err(ModelsLabError::Refused)?;
    let number = app.numbers.draw();
    wish.note.number = number;
    let submission = Submission {
        owner,
        dialect: DialectTag {
            name: "modelslab".to_owned(),
            note: Some(wish.note.to_text()),
        },
        recipe: wish.recipe,
        inputs: wish.inputs,
        delivery: Delivery {
            link_life: Some(app.config.modelslab.link_life),
            ..wish.delivery
        },
        limits: LIMITS,
        fit: Some(wish.size),
    };
    let id = app.service.submit(submission).await?;
    app.numbers.remember(number, id);
    // The job goes on when the caller hangs up, or does not want to wait any longer.
    let ended = tokio::time::timeout(app.config.modelslab.hold, app.service.wait(id)).await;
    let job = match ended {
        Ok(job) => job?,
        Err(_) => app.service.fetch(id).await?,
    };
    let reply = reply::of(app, base, &job).await?;
    Ok((ignored_header(&wish.ignored), Json(reply)).into_response())
}

/// The first checkpoint of the catalogue, for clients that name none.
fn default_model(app: &AppState) -> Option<String> {
    let entries = app.service.catalog().entries();
    let first = entries.iter().find(|entry| entry.kind == ModelKind::Checkpoint);
    first.map(|entry| entry.name.clone())
}

/// 32 random bits, as in the vendor's samples.
fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff
}

async fn fetch(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let found = fetch_job(&app, &base, request, None).await;
    answer(&app, found)
}

async fn fetch_by_path(
    State(app): State<AppState>,
    Path(number): Path<String>,
    base: BaseUrl,
    request: Request,
) -> Response {
    let found = fetch_job(&app, &base, request, Some(number)).await;
    answer(&app, found)
}

async fn fetch_job(
    app: &AppState,
    base: &BaseUrl,
    request: Request,
    in_path: Option<String>,
) -> Result<Response, ModelsLabError> {
    let (caller, mut fields, parts) = open(app, request).await?;
    let number = in_path
        .or_else(|| number_in(&mut fields))
        .or_else(|| in_query(&parts, "request_id"))
        .ok_or_else(|| required("request_id"))?;
    let number = number.trim().parse().map_err(|_| ModelsLabError::UnknownJob)?;
    let id = app.numbers.find(number).ok_or(ModelsLabError::UnknownJob)?;
    let job = app.service.fetch(id).await.map_err(reply::unknown)?;
    if job.owner != caller {
        return Err(ModelsLabError::UnknownJob);
    }
    let reply = reply::of(app, base, &job).await?;
    Ok(Json(reply).into_response())
}

/// `request_id` or `id`, as a number or a text.
fn number_in(fields: &mut Fields) -> Option<String> {
    ["request_id", "id"]
        .iter()
        .find_map(|field| match fields.take(field) {
            json::Json::Integer(number) => Some(number.to_string()),
            json::Json::Text(text) if !text.trim().is_empty() => Some(text),
            json::Json::Null
            | json::Json::Bool(_)
            | json::Json::Number(_)
            | json::Json::Text(_)
            | json::Json::List(_)
            | json::Json::Object(_) => None,
        })
}

fn in_query(parts: &Parts, field: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(parts.uri.query()?.as_bytes());
    pairs
        .find(|(name, _)| name == field)
        .map(|(_, value)| value.into_owned())
}

fn required(field: &str) -> ModelsLabError {
    ModelsLabError::Refused(vec![Refusal::value(field, "is required")])
}

async fn system_details(State(app): State<AppState>, request: Request) -> Response {
    let found = match open(&app, request).await {
        Ok(_) => Ok(written(management::system_details(&app).await)),
        Err(error) => Err(error),
    };
    answer(&app, found)
}

async fn schedulers_list(State(app): State<AppState>, request: Request) -> Response {
    let opened = open(&app, request).await;
    answer(&app, opened.map(|_| written(management::schedulers_list())))
}

async fn get_all_models(State(app): State<AppState>, request: Request) -> Response {
    let opened = open(&app, request).await;
    answer(&app, opened.map(|_| written(management::all_models(&app))))
}

async fn verify_model(State(app): State<AppState>, request: Request) -> Response {
    let found = open(&app, request).await.and_then(|(_, mut fields, _)| {
        let wanted = name("model_id", fields.take("model_id"));
        let wanted = wanted.map_err(|problem| ModelsLabError::Refused(vec![problem]))?;
        let wanted = wanted.ok_or_else(|| required("model_id"))?;
        Ok(written(management::verify_model(&app, &wanted)))
    });
    answer(&app, found)
}

fn written(reply: Value) -> Response {
    Json(reply).into_response()
}
