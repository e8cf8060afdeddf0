//! Every failure of this dialect in its own words: `{"error": {"message", "type", "param", "code"}}` with real statuses.
//!
//! The codes are listed in `docs/openai.md`.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pentimento_service::{ModelRole, ServiceError};
use pentimento_types::{ErrorKind, HasKind, InputRole, describe_chain};
use serde_json::{Value, json};

use super::fields::{
    DIFFERENTIAL_DIFFUSION, IMAGE, IP_ADAPTER, LORAS, MASK, MODEL, PROMPT, SCHEDULER, SIZE, STEPS, STRENGTH,
    VAE,
};
use crate::body::BodyError;
use crate::dialects::json::JsonError;
use crate::dialects::lenient::FieldError;
use crate::dialects::multipart::MultipartError;
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;
use crate::idempotency;
use crate::watch_seats::NoSeat;

/// What OpenAI's clients look at before they send a failed call again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a call of this dialect failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenAiError {
    /// Keys are configured and none was sent.
    #[error("no API key; send the header `Authorization: Bearer <key>`")]
    MissingKey,
    /// The key is none of ours.
    #[error("the API key is not one of this server's")]
    WrongKey,
    /// The call failed before it came here.
    #[error(transparent)]
    Edge(#[from] EdgeFault),
    /// The body is not a JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The body is not the form that it says it is.
    #[error(transparent)]
    Form(#[from] MultipartError),
    /// A field cannot be accepted.
    #[error(transparent)]
    InvalidField(#[from] FieldError),
    /// Too many follow a job.
    #[error("as many callers as may follow a job as it is made; leave out stream, or try again later")]
    NoSeat(NoSeat),
    /// A use case failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl From<BodyError> for OpenAiError {
    fn from(error: BodyError) -> Self {
        Self::Edge(error.into())
    }
}

impl HasKind for OpenAiError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingKey | Self::WrongKey => ErrorKind::Unauthenticated,
            Self::Edge(fault) => fault.kind(),
            Self::Json(_) | Self::Form(_) | Self::InvalidField(_) => ErrorKind::InvalidInput,
            Self::NoSeat(_) => ErrorKind::Overloaded,
            Self::Service(error) => error.kind(),
        }
    }
}

/// The one table from our kinds to this dialect: status and code. A new kind does not compile until it has a line here.
const fn answer_for(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::InvalidInput => (StatusCode::BAD_REQUEST, "invalid_value"),
        ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "invalid_api_key"),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        // A client that is made for the original tries a 409 again, which changes nothing here.
        ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        ErrorKind::RejectedContent => (StatusCode::BAD_REQUEST, "moderation_blocked"),
        ErrorKind::QuotaExceeded | ErrorKind::Overloaded => {
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded")
        }
        ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ErrorKind::BadModel | ErrorKind::Cancelled | ErrorKind::OutOfDeviceMemory | ErrorKind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, "server_error")
        }
    }
}

impl OpenAiError {
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Edge(EdgeFault::UnknownPath) => (StatusCode::NOT_FOUND, "unknown_url"),
            Self::Edge(fault) => (fault.status(), answer_for(fault.kind()).1),
            Self::Service(ServiceError::ModelNotFound { .. }) => (StatusCode::NOT_FOUND, "model_not_found"),
            Self::MissingKey
            | Self::WrongKey
            | Self::Json(_)
            | Self::Form(_)
            | Self::InvalidField(_)
            | Self::NoSeat(_)
            | Self::Service(_) => answer_for(self.kind()),
        }
    }

    /// The field that is at fault.
    fn param(&self) -> Option<&str> {
        match self {
            Self::Json(JsonError::Invalid { field, .. }) => field.as_deref(),
            Self::InvalidField(error) => Some(&error.field),
            Self::Service(error) => param_of(error),
            Self::MissingKey
            | Self::WrongKey
            | Self::Edge(_)
            | Self::Json(_)
            | Self::Form(_)
            | Self::NoSeat(_) => None,
        }
    }

    /// For the log only.
    fn cause(&self) -> Option<String> {
        match self {
            Self::Edge(fault) => fault.cause(),
            Self::Service(error) => Some(describe_chain(error)),
            Self::MissingKey
            | Self::WrongKey
            | Self::Json(_)
            | Self::Form(_)
            | Self::InvalidField(_)
            | Self::NoSeat(_) => None,
        }
    }
}

fn param_of(error: &ServiceError) -> Option<&'static str> {
    if let Some(role) = error.model_role() {
        return match role {
            ModelRole::Checkpoint => Some(MODEL.name),
            ModelRole::Vae => Some(VAE.name),
            ModelRole::Lora => Some(LORAS.name),
            ModelRole::IpAdapter | ModelRole::ImageEncoder => Some(IP_ADAPTER.name),
            // They are named by a word of the prompt.
            ModelRole::Embedding => Some(PROMPT.name),
            ModelRole::SafetyChecker | ModelRole::PromptEnhancer | ModelRole::Upscaler => None,
        };
    }
    if let ServiceError::PromptTooLong { field, .. } | ServiceError::PromptWeight { field, .. } = error {
        return Some(field);
    }
    if let ServiceError::RunRefused { setting, .. } = error {
        return Some(match *setting {
            "steps" => STEPS.name,
            "strength" => STRENGTH.name,
            "model" => MODEL.name,
            "differential_diffusion" => DIFFERENTIAL_DIFFUSION.name,
            _ => SCHEDULER.name,
        });
    }
    if matches!(error, ServiceError::SizeRefused { .. }) {
        return Some(SIZE.name);
    }
    if let ServiceError::OfInput { role, .. } = error {
        return Some(match role {
            InputRole::Mask => MASK.name,
            InputRole::Init | InputRole::IpAdapter => IMAGE.name,
        });
    }
    let of_image = matches!(
        error,
        ServiceError::ImageEmpty
            | ServiceError::ImageTooLarge { .. }
            | ServiceError::ImageTooManyPixels { .. }
            | ServiceError::ImageMegapixels { .. }
            | ServiceError::ImageWork { .. }
            | ServiceError::ImageUndecodable { .. }
            | ServiceError::ImageNotFetched { .. }
    );
    if of_image {
        return Some(IMAGE.name);
    }
    matches!(error, ServiceError::KeyReused).then_some(idempotency::HEADER)
}

impl From<OpenAiError> for Failure {
    fn from(error: OpenAiError) -> Self {
        let (status, code) = error.answer();
        let field = error.param().map(str::to_owned);
        let message = match &field {
            Some(field) if !error.to_string().starts_with(field) => format!("{field}: {error}"),
            _ => error.to_string(),
        };
        let mut failure = Self::new((error.kind(), status), code, message, body);
        failure.field = field;
        failure.cause = error.cause();
        match &error {
            OpenAiError::Service(error) => failure.retry_after(error.retry_after()),
            OpenAiError::Edge(fault) => failure.retry_after(fault.retry_after()),
            OpenAiError::MissingKey
            | OpenAiError::WrongKey
            | OpenAiError::Json(_)
            | OpenAiError::Form(_)
            | OpenAiError::InvalidField(_)
            | OpenAiError::NoSeat(_) => {}
        }
        failure
    }
}

/// A fault outside the calls, such as an unknown path, in this dialect's shape.
pub(crate) fn edge_failure(fault: EdgeFault) -> Failure {
    OpenAiError::from(fault).into()
}

fn body(failure: &Failure, request_id: &str) -> Value {
    let kind = match failure.status.as_u16() {
        429 => "requests",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({
        "error": {
            "message": failure.message,
            "type": kind,
            "param": failure.field,
            "code": failure.code,
            // Not in the original, whose clients read it from the header.
            "request_id": request_id,
        },
    })
}

/// Whether OpenAI's clients, which send most failures again, would only make the same job once more, or fail in the same way.
const fn is_final(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Conflict
        | ErrorKind::Cancelled
        | ErrorKind::BadModel
        | ErrorKind::OutOfDeviceMemory
        | ErrorKind::DeadlineExceeded => true,
        // What is wrong with a request they do not send again.
        ErrorKind::InvalidInput
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::TooLarge
        | ErrorKind::RejectedContent
        | ErrorKind::QuotaExceeded
        | ErrorKind::Overloaded
        | ErrorKind::Unavailable
        | ErrorKind::Internal => false,
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let is_final = is_final(self.kind());
        let mut response = Failure::from(self).into_response();
        if is_final {
            let never = HeaderValue::from_static("false");
            response.headers_mut().insert(SHOULD_RETRY, never);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: OpenAiError) -> (u16, Value) {
        let failure = Failure::from(error);
        let body = (failure.shape)(&failure, "req-1");
        (failure.status.as_u16(), body["error"].clone())
    }

    #[test]
    fn the_body_has_the_vendors_shape_and_names_the_field() {
        let (status, error) =
            written(FieldError::value("n", "must be a whole number in [1, 10], got 11").into());
        assert_eq!(status, 400);
        assert_eq!(
            error,
            json!({
                "message": "n must be a whole number in [1, 10], got 11",
                "type": "invalid_request_error",
                "param": "n",
                "code": "invalid_value",
                "request_id": "req-1",
            })
        );
    }

    #[test]
    fn every_failure_has_its_real_status() {
        let no_such = ServiceError::ModelNotFound {
            role: ModelRole::Checkpoint,
            name: "dmeo".to_owned(),
            nearest: vec!["demo".to_owned()],
        };
        let of_mask = ServiceError::OfInput {
            role: InputRole::Mask,
            fault: Box::new(ServiceError::MaskRefused {
                problem: "has no shape".to_owned(),
            }),
        };
        for (error, status, code, param) in [
            (OpenAiError::MissingKey, 401, "invalid_api_key", Value::Null),
            (OpenAiError::WrongKey, 401, "invalid_api_key", Value::Null),
            (EdgeFault::UnknownPath.into(), 404, "unknown_url", Value::Null),
            (EdgeFault::WrongMethod.into(), 405, "not_found", Value::Null),
            (no_such.into(), 404, "model_not_found", json!("model")),
            (of_mask.into(), 400, "invalid_value", json!("mask")),
            (
                ServiceError::Overloaded.into(),
                429,
                "rate_limit_exceeded",
                Value::Null,
            ),
            (ServiceError::ShuttingDown.into(), 503, "unavailable", Value::Null),
            (
                ServiceError::KeyReused.into(),
                409,
                "conflict",
                json!("Idempotency-Key"),
            ),
            (
                ServiceError::UnsafePicture.into(),
                400,
                "moderation_blocked",
                Value::Null,
            ),
            (
                BodyError::TooLarge { limit: 1 << 26 }.into(),
                413,
                "too_large",
                Value::Null,
            ),
        ] {
            let text = error.to_string();
            let (found, error) = written(error);
            assert_eq!(
                (found, &error["code"], &error["param"]),
                (status, &json!(code), &param),
                "{text}"
            );
        }
    }

    #[test]
    fn clients_are_told_not_to_send_again_what_would_only_be_made_again() {
        let failed = |kind| {
            let message = "x".to_owned();
            ServiceError::Failed(pentimento_types::JobFailure { kind, message })
        };
        for (error, is_final) in [
            (ServiceError::JobCancelled, true),
            (ServiceError::KeyReused, true),
            (failed(ErrorKind::BadModel), true),
            (failed(ErrorKind::DeadlineExceeded), true),
            (ServiceError::Overloaded, false),
            (ServiceError::ShuttingDown, false),
        ] {
            let text = error.to_string();
            let response = OpenAiError::from(error).into_response();
            let said = response
                .headers()
                .get(SHOULD_RETRY)
                .is_some_and(|value| value == "false");
            assert_eq!(said, is_final, "{text}");
        }
    }

    #[test]
    fn every_code_is_in_the_document() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openai.md");
        let page = fs_err::read_to_string(page).unwrap();
        let kinds = [
            ErrorKind::InvalidInput,
            ErrorKind::Unauthenticated,
            ErrorKind::Forbidden,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::TooLarge,
            ErrorKind::RejectedContent,
            ErrorKind::Overloaded,
            ErrorKind::DeadlineExceeded,
            ErrorKind::Unavailable,
            ErrorKind::Internal,
        ];
        let codes = kinds.map(|kind| answer_for(kind).1);
        for code in codes.into_iter().chain(["unknown_url", "model_not_found"]) {
            assert!(page.contains(&format!("`{code}`")), "{code}");
        }
    }
}
