//! What every call of this dialect begins and ends with: the key and the body, and the status of an error.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use pentimento_service::{InputLimits, KeyGrant, RateBucket};
use pentimento_types::Idempotency;

use super::error::ModelsLabError;
use super::fields::{KEY, MAX_IMAGE_BYTES};
use super::key_scan::KeyScan;
use super::wire::ReadFields;
use super::{auth, wire};
use crate::AppState;
use crate::access::Gate;
use crate::body::{self, BodyMemory, Sender};
use crate::dialects::json::Fields;
use crate::idempotency::{self, RequestDigest};

/// Nothing is documented. An image is brought to the size of the result, so only what decoding takes is bounded, by the
/// server's settings.
pub(super) const LIMITS: InputLimits = InputLimits {
    max_side: u32::MAX,
    max_pixels: u64::MAX,
    max_bytes: MAX_IMAGE_BYTES as u64,
};

/// The only place that knows which statuses errors have.
pub(super) fn answer(app: &AppState, result: Result<Response, ModelsLabError>) -> Response {
    let strict = app.config.modelslab.strict_http_status;
    result.unwrap_or_else(|error| error.failure(strict).into_response())
}

/// A call whose caller is known and whose body has been read.
pub(super) struct OpenedCall {
    pub(super) grant: KeyGrant,
    pub(super) fields: Fields,
    /// The caller's own name for it, where one was asked for and given.
    pub(super) idempotency: Option<Idempotency>,
    pub(super) parts: Parts,
    /// What the fields take.
    pub(super) memory: BodyMemory,
}

/// Reads the body and asks for the key, as early as it can be known: every call begins here.
///
/// It is counted as soon as that, too, so that whoever calls too often is told before the rest of the body is read.
pub(super) async fn open(
    app: &AppState,
    request: Request,
    bucket: RateBucket,
) -> Result<OpenedCall, ModelsLabError> {
    open_named(app, request, bucket, None).await
}

/// The same for a call that makes a job: with its name given, the caller's own name for the request counts.
pub(super) async fn open_named(
    app: &AppState,
    request: Request,
    bucket: RateBucket,
    call: Option<&str>,
) -> Result<OpenedCall, ModelsLabError> {
    let (parts, body) = request.into_parts();
    let mut gate = Gate::new(app, &parts.extensions, &parts.headers, bucket);
    let known = auth::before_body(&app.keys, &parts.headers, parts.uri.query())?;
    if let Some(grant) = &known {
        gate.count(app, grant)?;
    }
    let sender = match known {
        Some(_) => Sender::Identified,
        None => Sender::Unidentified,
    };
    let (key, digest) = own_name(&parts, call)?.unzip();
    let mut scan = known.is_none().then(KeyScan::new);
    let watch = |piece: &[u8], memory: &mut BodyMemory| {
        if let Some(key) = scan.as_mut().and_then(|scan| scan.feed(piece)) {
            let grant = app.keys.check(&key).ok_or(ModelsLabError::WrongKey)?;
            gate.count(app, &grant)?;
            memory.identify_sender();
        }
        Ok::<_, ModelsLabError>(())
    };
    let memory = BodyMemory::new(&app.bodies, sender)?;
    let body = body::read(&parts.headers, body, &app.config, memory, watch).await?;
    let ReadFields {
        mut fields,
        mut memory,
        digest,
    } = wire::fields(parts.clone(), body, (Arc::clone(&app.keys), digest)).await?;
    let grant = auth::caller(
        &app.keys,
        fields.take(KEY.name),
        &parts.headers,
        parts.uri.query(),
    )?;
    gate.count(app, &grant)?;
    // Forms tell their key only here. What they hold while their pictures are fetched is not for other strangers to miss.
    memory.identify_sender();
    let idempotency = digest.zip(key).map(|(digest, key)| digest.named(key));
    Ok(OpenedCall {
        grant,
        fields,
        idempotency,
        parts,
        memory,
    })
}

/// The caller's own name for a request that makes a job, and what its body is digested into.
fn own_name(parts: &Parts, call: Option<&str>) -> Result<Option<(String, RequestDigest)>, ModelsLabError> {
    let Some(call) = call else { return Ok(None) };
    let key =
        idempotency::key(&parts.headers).map_err(|problem| ModelsLabError::InvalidFields(vec![problem]))?;
    Ok(key.map(|key| (key, RequestDigest::new(call))))
}
