//! The paths of this dialect. Handlers only put the steps in a row; metrics and logs are in the middleware.

use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pentimento_service::image_codec::MaskReading;
use pentimento_service::{Fit, InputLimits, Submission, finished_images};
use pentimento_types::{DialectTag, Idempotency, JobId};
use serde_json::Value;

use super::auth::Caller;
use super::convert::{self, ParsedCall};
use super::error::NovitaError;
use super::fields::{INPUT_IMAGE, MAX_IMAGE_SIDE};
use super::models::ModelPage;
use super::models_v2::OldModelPage;
use super::query::ModelQuery;
use super::wire::LcmImg2ImgBody;
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::body::{self, BodyError, BodyMemory, ReadBody, Sender};
use crate::dialects::{ignored_header, json};
use crate::idempotency::{self, RequestDigest};
use crate::jobs::id_header;
use crate::origin::origin_of;

const LIMITS: InputLimits = InputLimits {
    max_side: MAX_IMAGE_SIDE,
    max_pixels: u64::MAX,
    max_bytes: INPUT_IMAGE.kind.max_bytes as u64,
};

/// All paths of this dialect.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v3/lcm-img2img", post(lcm_img2img))
        .route("/v3/model", get(models))
        .route("/v3/models", get(models))
        .route("/v3/user", get(user))
        .route("/v2/models", get(models_v2))
}

async fn lcm_img2img(
    State(app): State<AppState>,
    caller: Caller,
    base: BaseUrl,
    request: Request,
) -> Result<Response, NovitaError> {
    let (parts, body) = request.into_parts();
    let key = idempotency::key(&parts.headers)?;
    // Who asks is in a header, so nothing of the body has been read for anybody who may not.
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    let body = body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<(), BodyError>(())
    });
    let body = body.await?;
    let (parsed, memory, idempotency) = body::off_thread(move || read_call(body, key)).await?;
    let is_named = idempotency.is_some();
    let submission = Submission {
        owner: caller.0,
        origin: origin_of(&parts, app.service.traces()),
        dialect: DialectTag {
            name: "novita".to_owned(),
            note: None,
            number: None,
        },
        recipe: parsed.recipe,
        enhance_prompt: false,
        inputs: parsed.inputs,
        mask: MaskReading::default(),
        delivery: parsed.delivery,
        limits: LIMITS,
        // The vendor has no field for it.
        fit: Fit::Open(None),
        number: None,
        idempotency,
        stays: false,
    };
    let id = app.service.submit(submission).await?;
    // The service has its own copy of the image by now.
    drop(memory);
    let made = finished(&app, &base, (id, is_named), &parsed.ignored).await;
    Ok((id_header(id), made).into_response())
}

/// Waits for a job, and answers with its images.
async fn finished(
    app: &AppState,
    base: &BaseUrl,
    (id, is_named): (JobId, bool),
    ignored: &[String],
) -> Result<Response, NovitaError> {
    // Who has given the request a name will ask for the job again.
    let job = if is_named {
        app.service.wait(id).await?
    } else {
        app.service.wait_or_cancel(id).await?
    };
    let link = |image: &_| {
        let link = app.service.link(&job, image);
        (link.path, link.ttl)
    };
    let reply = convert::to_reply(&job, finished_images(&job)?, base, link);
    Ok((ignored_header(ignored), Json(reply)).into_response())
}

/// The call, the memory that its image takes, and the caller's own name for it.
fn read_call(
    body: ReadBody,
    key: Option<String>,
) -> Result<(ParsedCall, BodyMemory, Option<Idempotency>), NovitaError> {
    let idempotency = key.map(|key| {
        let mut digest = RequestDigest::new("lcm-img2img");
        digest.add(body.bytes());
        digest.named(key)
    });
    let copies = json::copies(body.bytes());
    let (bytes, mut memory) = body.with_room(copies)?;
    let fields = LcmImg2ImgBody::parse(&bytes)?;
    // Before the image is decoded, which needs a place of its own.
    drop(bytes);
    let parsed = convert::to_call(fields, random_seed())?;
    memory.shrink_to(body::inline_bytes(&parsed.inputs));
    Ok((parsed, memory, idempotency))
}

/// 32 random bits: `seed + k` stays far below 2^53, and every client can send it back.
fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff
}

async fn models(
    State(app): State<AppState>,
    _caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<ModelPage>, NovitaError> {
    let query = ModelQuery::parse(query.as_deref().unwrap_or_default())?;
    let models = app.service.model_states(app.service.catalog().entries()).await;
    Ok(Json(ModelPage::of(&models, &query)))
}

async fn models_v2(
    State(app): State<AppState>,
    _caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<OldModelPage>, NovitaError> {
    let query = query.unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let kind = pairs
        .find(|(name, value)| name == "type" && !value.is_empty())
        .map(|(_, value)| value.into_owned());
    let models = app.service.model_states(app.service.catalog().entries()).await;
    Ok(Json(OldModelPage::of(&models, kind.as_deref())))
}

/// Nobody pays here, so the credit never ends. Python parses these three keys.
async fn user(_caller: Caller) -> Json<Value> {
    Json(serde_json::json!({"allow_features": [], "credit_balance": 1_000_000, "free_trial": {}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_seeds_fit_every_client() {
        let seeds: Vec<u64> = (0..8).map(|_| random_seed()).collect();
        assert!(seeds.iter().all(|seed| *seed < 1 << 32));
        assert_ne!(seeds[0], seeds[1]);
    }
}
