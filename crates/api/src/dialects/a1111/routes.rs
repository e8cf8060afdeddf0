//! The paths of this dialect. Handlers only put the steps in a row; metrics and logs are in the middleware.

use axum::extract::{Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::auth::Caller;
use super::error::A1111Error;
use super::fields::OPTIONS;
use super::options::Options;
use super::{extras, generation, lists, png_info, progress, samplers};
use crate::AppState;
use crate::body::{self, BodyError, BodyMemory, ReadBody, Sender};
use crate::dialects::field::names;
use crate::dialects::{ignored_header, json};

/// All paths of this dialect.
pub(crate) fn routes() -> Router<AppState> {
    let root = "/sdapi/v1";
    let nothing = [
        "latent-upscale-modes",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
        "script-info",
        "extensions",
    ];
    let refreshes = [
        "refresh-checkpoints",
        "refresh-vae",
        "refresh-loras",
        "refresh-embeddings",
    ];
    let mut routes = Router::new()
        .route("/img2img", post(generation::img2img))
        .route("/txt2img", post(generation::txt2img))
        .route("/progress", get(progress::progress))
        .route("/interrupt", post(progress::interrupt))
        .route("/skip", post(progress::skip))
        .route("/options", get(options).post(set_options))
        .route("/samplers", get(async |_: Caller| Json(samplers::list())))
        .route("/schedulers", get(async |_: Caller| Json(samplers::schedulers())))
        .route("/sd-models", get(lists::sd_models))
        .route("/sd-vae", get(lists::sd_vae))
        .route("/sd-modules", get(lists::sd_vae))
        .route("/loras", get(lists::loras))
        .route("/embeddings", get(lists::embeddings))
        .route("/upscalers", get(lists::upscalers))
        .route("/scripts", get(lists::no_scripts))
        .route("/cmd-flags", get(lists::no_flags))
        .route("/memory", get(lists::memory))
        .route("/png-info", post(info_of))
        .route("/extra-single-image", post(extra_single_image));
    for path in nothing {
        routes = routes.route(&format!("/{path}"), get(lists::nothing));
    }
    for path in refreshes {
        routes = routes.route(&format!("/{path}"), post(lists::refreshed));
    }
    for (call, instead) in NOT_OFFERED {
        let refused = async move |_: Caller| -> Result<(), A1111Error> {
            Err(A1111Error::NotOffered { call, instead })
        };
        routes = routes.route(&format!("/{call}"), post(refused));
    }
    Router::new().nest(root, routes)
}

/// Calls that the original has, and what to do instead.
const NOT_OFFERED: [(&str, &str); 10] = [
    ("interrogate", "nothing here describes pictures"),
    ("extra-batch-images", "send each picture to extra-single-image"),
    ("create/embedding", "nothing is trained here"),
    ("create/hypernetwork", "nothing is trained here"),
    ("train/embedding", "nothing is trained here"),
    ("train/hypernetwork", "nothing is trained here"),
    (
        "unload-checkpoint",
        "models leave memory by themselves, or by POST /v1/models/{name}/unload",
    ),
    (
        "reload-checkpoint",
        "models come into memory by themselves, or by POST /v1/models/{name}/load",
    ),
    ("server-restart", "the operator starts the server anew"),
    ("server-stop", "the operator stops the server"),
];

async fn options(State(app): State<AppState>, Caller(owner): Caller) -> Json<Value> {
    Json(app.a1111_options.of(&owner).described(app.service.catalog()))
}

/// For the caller's own key, and until the server ends.
async fn set_options(
    State(app): State<AppState>,
    Caller(owner): Caller,
    request: Request,
) -> Result<(axum::http::HeaderMap, Json<Value>), A1111Error> {
    let body = read(&app, request).await?;
    let (bytes, _memory) = body.with_room(json::MAX_COPIES)?;
    let mut fields = json::parse_object(&bytes, &names(&[OPTIONS]))?;
    let options = Options::read(("", &mut fields), app.service.catalog())?;
    app.a1111_options.set(&owner, options);
    Ok((ignored_header(&fields.into_ignored()), Json(Value::Null)))
}

async fn info_of(
    State(app): State<AppState>,
    _caller: Caller,
    request: Request,
) -> Result<Json<Value>, A1111Error> {
    let body = read(&app, request).await?;
    let found = body::off_thread(move || {
        let copies = json::copies(body.bytes());
        let (bytes, _memory) = body.with_room(copies)?;
        png_info::of_body(&bytes)
    });
    Ok(Json(found.await?))
}

async fn extra_single_image(
    State(app): State<AppState>,
    Caller(owner): Caller,
    request: Request,
) -> Result<Json<Value>, A1111Error> {
    let body = read(&app, request).await?;
    Ok(Json(extras::enlarged(&app, owner, body).await?))
}

/// The body of a call whose sender is known by its headers.
async fn read(app: &AppState, request: Request) -> Result<ReadBody, BodyError> {
    let (parts, body) = request.into_parts();
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<(), BodyError>(())
    })
    .await
}
