//! The paths of this dialect, under every prefix that a client is known to use.

use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use pentimento_service::image_codec::MaskReading;
use pentimento_service::{KeyGrant, ModelKind, ModelRole, RateBucket, ServiceError, Submission};
use pentimento_types::{Clock as _, Delivery, DialectTag, SystemClock};
use serde_json::{Value, json};

use super::convert::{self, Call, Defaults, ParsedCall};
use super::error::ModelsLabError;
use super::fields::{MODEL_ID, REQUEST_ID, VAE_ID};
use super::opened_call::{LIMITS, OpenedCall, answer, open, open_named};
use super::{NAME, management, number, operating, pictures, reply};
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::body::{self, BodyMemory};
use crate::dialects::ignored_header;
use crate::dialects::json::{self, Fields};
use crate::dialects::lenient::{FieldError, name};
use crate::jobs::id_header;
use crate::origin::origin_of;

/// The vendor's documentation, then its SDKs (`images`, `realtime`, `community`, `image_editing`), an old package
/// (`txt2img`), the non-enterprise mode, the paths of the older brand, and base addresses without `/api`.
const PREFIXES: &[&str] = &[
    "/api/v1/enterprise",
    "/api/v1/enterprise/images",
    "/api/v1/enterprise/txt2img",
    "/api/v1/enterprise/realtime",
    "/api/v1/enterprise/community",
    "/api/v1/enterprise/image_editing",
    "/api/v6",
    "/api/v6/images",
    "/api/v6/realtime",
    "/api/v6/image_editing",
    "/api/v3",
    "/api/v4/dreambooth",
    "/api/v5",
    "/v1/enterprise",
    "/v1/enterprise/images",
    "/v6/images",
];
/// What the older brand called text to image with a model of one's own.
const DREAMBOOTH: &[&str] = &["/api/v3/dreambooth", "/api/v4/dreambooth"];

/// All paths of this dialect.
pub(crate) fn routes() -> Router<AppState> {
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router.nest(prefix, calls());
    }
    for path in DREAMBOOTH {
        router = router.route(
            path,
            any(|app, request| refuse(app, request, "dreambooth", management::TEXT)),
        );
    }
    router
}

/// The path that the vendor documents for a call, whichever of its paths was taken; None for other dialects' paths.
pub(crate) fn documented_path(path: &str) -> Option<String> {
    let calls = PREFIXES.iter().filter_map(|prefix| path.strip_prefix(prefix));
    // The longest prefix leaves the shortest call.
    let call = calls
        .filter(|call| call.starts_with('/'))
        .min_by_key(|call| call.len())?;
    Some(format!("{}{call}", PREFIXES[0]))
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
        .route("/verify_model", any(verify_model))
        .route("/load_model", any(load_model))
        .route("/load_model_v2", any(load_model))
        .route("/load_vae", any(load_vae))
        .route("/delete_model", any(delete_model))
        .route("/nsfw_image_check", post(nsfw_image_check))
        .route("/super_resolution", post(super_resolution))
        .route("/upload_image", post(upload_image))
        .merge(operating::routes());
    for (call, instead) in management::NOT_OFFERED {
        router = router.route(
            &format!("/{call}"),
            any(|app, request| refuse(app, request, call, instead)),
        );
    }
    router
}

/// A call that is not offered. Whoever has no key is told nothing else, as everywhere.
async fn refuse(
    State(app): State<AppState>,
    request: Request,
    call: &'static str,
    instead: &'static str,
) -> Response {
    let refused = open(&app, request, RateBucket::Calls).await.and_then(|_| {
        Err(ModelsLabError::NotOffered {
            call: call.to_owned(),
            instead,
        })
    });
    answer(&app, refused)
}

async fn img2img(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let made = generate(&app, &base, request, Call::Img2Img).await;
    answer(&app, made)
}

async fn inpaint(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let made = generate(&app, &base, request, Call::Inpaint).await;
    answer(&app, made)
}

async fn generate(
    app: &AppState,
    base: &BaseUrl,
    request: Request,
    call: Call,
) -> Result<Response, ModelsLabError> {
    // Clients count from the moment when they begin to send.
    let until = SystemClock.now() + app.config.modelslab.hold;
    let OpenedCall {
        grant,
        fields,
        parts,
        memory,
        idempotency,
    } = open_named(app, request, RateBucket::Calls, Some(call.name())).await?;
    let defaults = Defaults {
        model: default_model(app),
        seed: random_seed(),
        enhance_prompt: app.config.modelslab.enhance_prompt,
        has_cluster: app.service.nodes().is_some(),
    };
    let parsed = body::off_thread(move || parse_call(fields, memory, call, defaults)).await;
    let (mut parsed, memory) = parsed.map_err(ModelsLabError::InvalidFields)?;
    if parsed.delivery.webhook.is_some() {
        parsed.note.base = base.as_str().to_owned();
    }
    let submission = Submission {
        owner: grant.owner,
        origin: origin_of(&parts, app.service.traces()),
        dialect: DialectTag {
            name: NAME.to_owned(),
            note: Some(parsed.note.to_text()),
            number: None,
        },
        recipe: parsed.recipe,
        enhance_prompt: parsed.enhance_prompt,
        inputs: parsed.inputs,
        mask: MaskReading::default(),
        delivery: Delivery {
            link_life: Some(app.config.modelslab.link_life),
            ..parsed.delivery
        },
        limits: LIMITS,
        fit: parsed.fit,
        number: Some(number::draw),
        idempotency,
        stays: parsed.stays,
    };
    let id = app
        .service
        .submit_until(submission, until, Box::new(memory))
        .await?;
    // The job goes on when the caller hangs up, or does not want to wait any longer.
    let left = until.saturating_duration_since(SystemClock.now());
    let ended = tokio::time::timeout(left, app.service.wait(id)).await;
    let job = match ended {
        // It goes on with the next start, and can be fetched then.
        Ok(Err(ServiceError::ShuttingDown)) | Err(_) => app.service.fetch(id).await?,
        Ok(job) => job?,
    };
    let reply = reply::of(app, base, &job).await?;
    Ok((id_header(id), ignored_header(&parsed.ignored), Json(reply)).into_response())
}

/// The call, and the memory that its images take. It goes along, because this runs on when the caller hangs up.
fn parse_call(
    fields: Fields,
    mut memory: BodyMemory,
    call: Call,
    defaults: Defaults,
) -> Result<(ParsedCall, BodyMemory), Vec<FieldError>> {
    let parsed = convert::to_call(fields, call, defaults)?;
    memory.shrink_to(body::inline_bytes(&parsed.inputs));
    Ok((parsed, memory))
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
    let OpenedCall {
        grant,
        mut fields,
        parts,
        ..
    } = open(app, request, RateBucket::Polls).await?;
    let number = in_path
        .or_else(|| number_in(&mut fields))
        .or_else(|| in_query(&parts, REQUEST_ID.name))
        .ok_or_else(|| required(REQUEST_ID.name))?;
    let number = number::parse(&number).ok_or(ModelsLabError::UnknownJob)?;
    let found = app.service.find_by_number(&grant.owner, NAME, number).await?;
    let job = found.ok_or(ModelsLabError::UnknownJob)?;
    let reply = reply::of(app, base, &job).await?;
    Ok((id_header(job.id), Json(reply)).into_response())
}

/// `request_id` or `id`, as a number or a text.
fn number_in(fields: &mut Fields) -> Option<String> {
    REQUEST_ID.names().find_map(|field| match fields.take(field) {
        json::Json::Integer(number) => Some(number.to_string()),
        json::Json::Number(number) => Some(number.to_string()),
        json::Json::Text(text) if !text.trim().is_empty() => Some(text),
        json::Json::Null
        | json::Json::Bool(_)
        | json::Json::Text(_)
        | json::Json::File(_)
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
    ModelsLabError::InvalidFields(vec![FieldError::value(field, "is required")])
}

async fn system_details(State(app): State<AppState>, request: Request) -> Response {
    let found = match open(&app, request, RateBucket::Polls).await {
        Ok(_) => Ok(written(management::system_details(&app).await)),
        Err(error) => Err(error),
    };
    answer(&app, found)
}

async fn schedulers_list(State(app): State<AppState>, request: Request) -> Response {
    let opened = open(&app, request, RateBucket::Polls).await;
    answer(&app, opened.map(|_| written(management::schedulers_list())))
}

async fn get_all_models(State(app): State<AppState>, request: Request) -> Response {
    let found = match open(&app, request, RateBucket::Polls).await {
        Ok(_) => Ok(written(management::all_models(&app).await)),
        Err(error) => Err(error),
    };
    answer(&app, found)
}

async fn verify_model(State(app): State<AppState>, request: Request) -> Response {
    let found = match named(&app, request, (MODEL_ID.name, RateBucket::Polls)).await {
        Ok((wanted, _)) => Ok(written(management::verify_model(&app, &wanted).await)),
        Err(error) => Err(error),
    };
    answer(&app, found)
}

async fn load_model(State(app): State<AppState>, request: Request) -> Response {
    let started = json!({"status": "success", "message": "model load started"});
    let roles = [ModelRole::Checkpoint, ModelRole::Lora, ModelRole::Embedding];
    let found = begin_to_load(&app, request, (MODEL_ID.name, &roles)).await;
    answer(&app, found.map(|()| written(started)))
}

async fn load_vae(State(app): State<AppState>, request: Request) -> Response {
    let started = json!({"status": "success", "message": "VAE load started"});
    let found = begin_to_load(&app, request, (VAE_ID.name, &[ModelRole::Vae])).await;
    answer(&app, found.map(|()| written(started)))
}

async fn begin_to_load(
    app: &AppState,
    request: Request,
    (field, roles): (&str, &[ModelRole]),
) -> Result<(), ModelsLabError> {
    let wanted = of_operator(named(app, request, (field, RateBucket::Calls)).await?)?;
    Ok(management::load_model(app, roles, &wanted).await?)
}

async fn delete_model(State(app): State<AppState>, request: Request) -> Response {
    let named = named(&app, request, (MODEL_ID.name, RateBucket::Calls)).await;
    let found = match named.and_then(of_operator) {
        Ok(wanted) => management::delete_model(&app, &wanted).await.map(written),
        Err(error) => return answer(&app, Err(error)),
    };
    answer(&app, found.map_err(ModelsLabError::from))
}

/// Which models are in memory concerns all callers.
fn of_operator((wanted, grant): (String, KeyGrant)) -> Result<String, ModelsLabError> {
    grant.admin.then_some(wanted).ok_or(ModelsLabError::NotOperator)
}

async fn nsfw_image_check(State(app): State<AppState>, request: Request) -> Response {
    let found = match open(&app, request, RateBucket::Calls).await {
        Ok(call) => pictures::nsfw_image_check(&app, call).await.map(written),
        Err(error) => Err(error),
    };
    answer(&app, found)
}

async fn upload_image(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let kept = match open(&app, request, RateBucket::Calls).await {
        Ok(call) => pictures::upload_image(&app, &base, call).await.map(written),
        Err(error) => Err(error),
    };
    answer(&app, kept)
}

async fn super_resolution(State(app): State<AppState>, base: BaseUrl, request: Request) -> Response {
    let made = match open(&app, request, RateBucket::Calls).await {
        Ok(call) => pictures::super_resolution(&app, &base, call).await.map(written),
        Err(error) => Err(error),
    };
    answer(&app, made)
}

/// The one field that a call about a model needs.
async fn named(
    app: &AppState,
    request: Request,
    (field, bucket): (&str, RateBucket),
) -> Result<(String, KeyGrant), ModelsLabError> {
    let mut call = open(app, request, bucket).await?;
    let wanted = name(field, call.fields.take(field));
    let wanted = wanted.map_err(|problem| ModelsLabError::InvalidFields(vec![problem]))?;
    Ok((wanted.ok_or_else(|| required(field))?, call.grant))
}

fn written(reply: Value) -> Response {
    Json(reply).into_response()
}
