//! The paths of this dialect. Handlers only put the steps in a row; metrics and logs are in the middleware.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use pentimento_service::image_codec::MaskReading;
use pentimento_service::{Catalog, Fit, InputLimits, Submission};
use pentimento_types::{ApiKeyId, DialectTag, Idempotency, JobId, JobOrigin};

use super::auth::Caller;
use super::body as wire;
use super::convert::{self, Call, ParsedCall};
use super::error::OpenAiError;
use super::fields::{LONGEST_SIDE, MAX_IMAGE_BYTES};
use super::{NAME, reply, stream};
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::body::{self, BodyError, BodyMemory, ReadBody, Sender};
use crate::dialects::ignored_header;
use crate::dialects::json::Fields;
use crate::idempotency::{self, RequestDigest};
use crate::jobs::id_header;
use crate::middleware::RequestId;
use crate::origin::origin_of;

/// All paths of this dialect.
pub(crate) fn routes() -> Router<AppState> {
    let mut router = Router::new();
    for call in Call::ALL {
        router = router.route(
            &format!("/v1/images/{}", call.name()),
            post(move |app, caller, base, request| answer(app, caller, base, request, call)),
        );
    }
    router
}

async fn answer(
    State(app): State<AppState>,
    caller: Caller,
    base: BaseUrl,
    request: Request,
    call: Call,
) -> Result<Response, OpenAiError> {
    let (parts, body) = request.into_parts();
    let key = idempotency::key(&parts.headers)?;
    // Who asks is in a header, so nothing of the body has been read for anybody who may not.
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    let body = body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<(), BodyError>(())
    });
    let body = body.await?;
    let service = app.service.clone();
    let read = body::off_thread(move || {
        let catalog = service.catalog();
        read_call((body, &parts), (call, key), catalog).map(|read| (read, parts))
    });
    let ((parsed, memory, idempotency), parts) = read.await?;
    let is_named = idempotency.is_some();
    let style = parsed.style;
    // Before the job is made, which nobody would follow otherwise.
    let seat = match style.stream {
        Some(_) => Some(app.watch_seats.take(caller.who).map_err(OpenAiError::NoSeat)?),
        None => None,
    };
    let ignored = ignored_header(&parsed.ignored);
    let who = (caller.owner.clone(), origin_of(&parts, app.service.traces()));
    let submission = submission(NAME, who, parsed, idempotency);
    let id = app.service.submit(submission).await?;
    // The service has its own copy of the images by now.
    drop(memory);
    let made = match (style.stream, seat) {
        (Some(previews), Some(seat)) => {
            let request_id = parts.extensions.get::<RequestId>();
            let request_id = request_id.map_or_else(String::new, |id| id.as_str().to_owned());
            let follower = stream::Follower {
                service: app.service.clone(),
                owner: caller.owner,
                call,
                style,
                request_id,
            };
            follower.follow((id, is_named), (previews, seat)).await
        }
        _ => finished(&app, &base, (id, is_named), style).await,
    };
    // Who is told that something went wrong can still look at the job.
    let made = made.unwrap_or_else(IntoResponse::into_response);
    Ok((id_header(id), ignored, made).into_response())
}

/// The request of a call; `dialect` is what its record names.
pub(crate) fn submission(
    dialect: &str,
    (owner, origin): (ApiKeyId, JobOrigin),
    parsed: ParsedCall,
    idempotency: Option<Idempotency>,
) -> Submission {
    Submission {
        owner,
        origin,
        dialect: DialectTag {
            name: dialect.to_owned(),
            note: None,
            number: None,
        },
        limits: InputLimits {
            // Without a size the result has that of the image.
            max_side: if parsed.fit == Fit::Open(None) {
                LONGEST_SIDE
            } else {
                u32::MAX
            },
            max_pixels: u64::MAX,
            max_bytes: MAX_IMAGE_BYTES as u64,
        },
        recipe: parsed.recipe,
        enhance_prompt: false,
        inputs: parsed.inputs,
        mask: MaskReading::Transparent,
        delivery: parsed.delivery,
        fit: parsed.fit,
        number: None,
        idempotency,
        stays: false,
    }
}

/// The call that the arguments of a tool describe: with an image it is an edit.
pub(crate) fn read_arguments(fields: Fields, catalog: &Catalog) -> Result<ParsedCall, OpenAiError> {
    Ok(convert::to_call_by_image(fields, (catalog, random_seed()))?)
}

/// Waits for a job, and answers with its images.
async fn finished(
    app: &AppState,
    base: &BaseUrl,
    (id, is_named): (JobId, bool),
    style: convert::ReplyStyle,
) -> Result<Response, OpenAiError> {
    // Who has given the request a name will ask for the job again.
    let job = if is_named {
        app.service.wait(id).await?
    } else {
        app.service.wait_or_cancel(id).await?
    };
    reply::of((&app.service, base), &job, style).await
}

/// The call, the memory that its images take, and the caller's own name for it.
fn read_call(
    (body, parts): (ReadBody, &Parts),
    (call, key): (Call, Option<String>),
    catalog: &Catalog,
) -> Result<(ParsedCall, BodyMemory, Option<Idempotency>), OpenAiError> {
    let mut named = key.map(|key| (key, RequestDigest::new(call.name())));
    let copies = wire::copies(&parts.headers, body.bytes());
    let (bytes, mut memory) = body.with_room(copies)?;
    let digest = named.as_mut().map(|(_, digest)| digest);
    let fields = wire::fields(&parts.headers, &bytes, (call.tables(), digest))?;
    // Before the images are decoded, which need a place of their own.
    drop(bytes);
    let parsed = convert::to_call(fields, call, (catalog, random_seed()))?;
    memory.shrink_to(body::inline_bytes(&parsed.inputs));
    let idempotency = named.map(|(key, digest)| digest.named(key));
    Ok((parsed, memory, idempotency))
}

/// 32 random bits: `seed + k` stays far below 2^53, and every client can send it back.
fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff
}
