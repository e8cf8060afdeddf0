//! Every failure of this dialect in its own words: HTTP status, `reason` and the field at fault.
//!
//! The body is `{"code", "reason", "message", "metadata"}` with `code` equal to the HTTP status.
//! Each reason has a page in `docs/errors`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pentimento_service::{ModelRole, ServiceError};
use pentimento_types::{ErrorKind, HasKind, describe_chain};
use serde_json::{Value, json};

use super::fields::{EMBEDDINGS, EXTRA, INPUT_IMAGE, LORAS, MODEL_NAME, SD_VAE, STEPS, STRENGTH};
use crate::body::BodyError;
use crate::dialects::json::JsonError;
use crate::dialects::lenient::{FieldError, FieldErrorReason};
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;
use crate::idempotency;

/// The vendor's words, as in its table of common errors.
pub(super) mod reason {
    pub(crate) const INVALID_REQUEST_BODY: &str = "INVALID_REQUEST_BODY";
    pub(crate) const IMAGE_FILE_EXCEEDS_MAX_SIZE: &str = "IMAGE_FILE_EXCEEDS_MAX_SIZE";
    pub(crate) const INVALID_IMAGE_FORMAT: &str = "INVALID_IMAGE_FORMAT";
    pub(crate) const IMAGE_EXCEEDS_MAX_RESOLUTION: &str = "IMAGE_EXCEEDS_MAX_RESOLUTION";
    pub(crate) const ILLEGAL_PROMPT: &str = "ILLEGAL_PROMPT";
    pub(crate) const MISSING_API_KEY: &str = "MISSING_API_KEY";
    pub(crate) const INVALID_API_KEY: &str = "INVALID_API_KEY";
    pub(crate) const API_NOT_FOUND: &str = "API_NOT_FOUND";
    pub(crate) const API_NOT_ALLOWED: &str = "API_NOT_ALLOWED";
    pub(crate) const MODEL_NOT_FOUND: &str = "MODEL_NOT_FOUND";
    pub(crate) const FEATURE_NOT_ALLOWED: &str = "FEATURE_NOT_ALLOWED";
    pub(crate) const RATE_LIMIT_EXCEEDED: &str = "RATE_LIMIT_EXCEEDED";
    pub(crate) const CREATE_TASK_FAILED: &str = "CREATE_TASK_FAILED";
    pub(crate) const TASK_FAILED: &str = "TASK_FAILED";
    pub(crate) const TASK_NOT_FOUND: &str = "TASK_NOT_FOUND";
}
use reason::{
    API_NOT_ALLOWED, API_NOT_FOUND, CREATE_TASK_FAILED, FEATURE_NOT_ALLOWED, ILLEGAL_PROMPT,
    IMAGE_EXCEEDS_MAX_RESOLUTION, IMAGE_FILE_EXCEEDS_MAX_SIZE, INVALID_API_KEY, INVALID_IMAGE_FORMAT,
    INVALID_REQUEST_BODY, MISSING_API_KEY, MODEL_NOT_FOUND, RATE_LIMIT_EXCEEDED, TASK_FAILED, TASK_NOT_FOUND,
};

/// Why a call of this dialect failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NovitaError {
    /// Keys are configured and none was sent.
    #[error("no API key; send the header `Authorization: Bearer <key>`")]
    MissingKey,
    /// The key is none of ours. The text is the one that the original was seen to send.
    #[error("invalid api-key")]
    WrongKey,
    /// The call failed before it came here.
    #[error(transparent)]
    Edge(#[from] EdgeFault),
    /// The body is not a JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field cannot be accepted.
    #[error(transparent)]
    InvalidField(#[from] FieldError),
    /// A use case failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl From<BodyError> for NovitaError {
    fn from(error: BodyError) -> Self {
        Self::Edge(error.into())
    }
}

impl HasKind for NovitaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingKey => ErrorKind::Unauthenticated,
            Self::WrongKey => ErrorKind::Forbidden,
            Self::Edge(fault) => fault.kind(),
            Self::Json(_) | Self::InvalidField(_) => ErrorKind::InvalidInput,
            Self::Service(error) => error.kind(),
        }
    }
}

/// The one table from our kinds to this dialect. A new kind does not compile until it has a line here.
const fn answer_for(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::Conflict => (StatusCode::BAD_REQUEST, INVALID_REQUEST_BODY),
        // The vendor's table has 400 here and 403 for a wrong key.
        ErrorKind::Unauthenticated => (StatusCode::BAD_REQUEST, MISSING_API_KEY),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, INVALID_API_KEY),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, API_NOT_FOUND),
        ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, IMAGE_FILE_EXCEEDS_MAX_SIZE),
        ErrorKind::RejectedContent => (StatusCode::BAD_REQUEST, ILLEGAL_PROMPT),
        ErrorKind::QuotaExceeded | ErrorKind::Overloaded => {
            (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT_EXCEEDED)
        }
        ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, TASK_FAILED),
        ErrorKind::Unavailable | ErrorKind::BadModel => (StatusCode::SERVICE_UNAVAILABLE, CREATE_TASK_FAILED),
        ErrorKind::Cancelled | ErrorKind::OutOfDeviceMemory | ErrorKind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, TASK_FAILED)
        }
    }
}

/// The vendor's word for a fault at the edge.
const fn reason_for(fault: &EdgeFault) -> &'static str {
    match fault {
        EdgeFault::UnknownPath => API_NOT_FOUND,
        EdgeFault::WrongMethod => API_NOT_ALLOWED,
        EdgeFault::ForeignHost { .. } | EdgeFault::ForeignPage { .. } => FEATURE_NOT_ALLOWED,
        EdgeFault::Body(BodyError::TooLarge { .. }) => IMAGE_FILE_EXCEEDS_MAX_SIZE,
        EdgeFault::Body(BodyError::NoRoom) => CREATE_TASK_FAILED,
        EdgeFault::Body(BodyError::TooSlow | BodyError::Broken | BodyError::Compressed { .. }) => {
            INVALID_REQUEST_BODY
        }
        EdgeFault::TooOften(_) => RATE_LIMIT_EXCEEDED,
        EdgeFault::Panicked { .. } => TASK_FAILED,
    }
}

impl NovitaError {
    /// Status and reason: the table's, unless the vendor has a more exact word.
    fn answer(&self) -> (StatusCode, &'static str) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            Self::Edge(fault) => (fault.status(), reason_for(fault)),
            Self::InvalidField(error) => match error.reason {
                FieldErrorReason::Value => (BAD, INVALID_REQUEST_BODY),
                FieldErrorReason::Image => (BAD, INVALID_IMAGE_FORMAT),
                FieldErrorReason::ImageBytes => (BAD, IMAGE_FILE_EXCEEDS_MAX_SIZE),
            },
            Self::Service(ServiceError::ModelNotFound { .. }) => (BAD, MODEL_NOT_FOUND),
            Self::Service(ServiceError::ImageEmpty | ServiceError::ImageUndecodable { .. }) => {
                (BAD, INVALID_IMAGE_FORMAT)
            }
            Self::Service(ServiceError::ImageTooLarge { .. }) => (BAD, IMAGE_FILE_EXCEEDS_MAX_SIZE),
            Self::Service(
                ServiceError::ImageTooManyPixels { .. }
                | ServiceError::ImageMegapixels { .. }
                | ServiceError::ImageWork { .. }
                | ServiceError::ImageMemory { .. },
            ) => (BAD, IMAGE_EXCEEDS_MAX_RESOLUTION),
            Self::Service(ServiceError::JobNotFound { .. }) => (StatusCode::NOT_FOUND, TASK_NOT_FOUND),
            Self::Service(ServiceError::KeyReused) => (StatusCode::CONFLICT, INVALID_REQUEST_BODY),
            Self::MissingKey | Self::WrongKey | Self::Json(_) | Self::Service(_) => answer_for(self.kind()),
        }
    }

    /// The field of the body or query that is at fault.
    fn field(&self) -> Option<&str> {
        if let Self::Json(JsonError::Invalid { field, .. }) = self {
            return field.as_deref();
        }
        if let Self::InvalidField(error) = self {
            return Some(&error.field);
        }
        let Self::Service(error) = self else { return None };
        if let Some(role) = error.model_role() {
            return Some(match role {
                ModelRole::Checkpoint => MODEL_NAME.name,
                ModelRole::Vae => SD_VAE.name,
                ModelRole::Lora => LORAS.name,
                ModelRole::Embedding => EMBEDDINGS.name,
                ModelRole::SafetyChecker => EXTRA.name,
                // Its bodies name none.
                ModelRole::IpAdapter
                | ModelRole::ImageEncoder
                | ModelRole::PromptEnhancer
                | ModelRole::Upscaler => return None,
            });
        }
        if matches!(error, ServiceError::KeyReused) {
            return Some(idempotency::HEADER);
        }
        if let ServiceError::PromptTooLong { field, .. } | ServiceError::PromptWeight { field, .. } = error {
            return Some(field);
        }
        if let ServiceError::RunRefused { setting, .. } = error {
            // Which scheduler runs is not the caller's to say here.
            return [STEPS.name, STRENGTH.name]
                .into_iter()
                .find(|name| name == setting);
        }
        let of_image = matches!(
            error,
            ServiceError::ImageEmpty
                | ServiceError::ImageTooLarge { .. }
                | ServiceError::ImageTooManyPixels { .. }
                | ServiceError::ImageMegapixels { .. }
                | ServiceError::ImageWork { .. }
                | ServiceError::ImageMemory { .. }
                | ServiceError::ImageUndecodable { .. }
        );
        of_image.then_some(INPUT_IMAGE.name)
    }

    /// For the log only.
    fn cause(&self) -> Option<String> {
        match self {
            Self::Edge(fault) => fault.cause(),
            Self::Service(error) => Some(describe_chain(error)),
            Self::MissingKey | Self::WrongKey | Self::Json(_) | Self::InvalidField(_) => None,
        }
    }
}

impl From<NovitaError> for Failure {
    fn from(error: NovitaError) -> Self {
        let (status, code) = error.answer();
        let field = error.field().map(str::to_owned);
        let message = match &field {
            Some(field) if !error.to_string().starts_with(field) => format!("{field}: {error}"),
            _ => error.to_string(),
        };
        let mut failure = Self::new((error.kind(), status), code, message, body);
        failure.field = field;
        failure.cause = error.cause();
        if let NovitaError::Service(error) = &error {
            failure.retry_after(error.retry_after());
        } else if let NovitaError::Edge(fault) = &error {
            failure.retry_after(fault.retry_after());
        }
        failure
    }
}

/// A fault outside the calls, such as an unknown path, in this dialect's shape.
pub(crate) fn edge_failure(fault: EdgeFault) -> Failure {
    NovitaError::from(fault).into()
}

fn body(failure: &Failure, request_id: &str) -> Value {
    let mut metadata = json!({"request_id": request_id});
    if let Some(field) = &failure.field {
        metadata["field"] = json!(field);
    }
    json!({
        "code": failure.status.as_u16(),
        "reason": failure.code,
        "message": failure.message,
        "metadata": metadata,
    })
}

impl IntoResponse for NovitaError {
    fn into_response(self) -> Response {
        Failure::from(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: NovitaError) -> (u16, Value) {
        let failure = Failure::from(error);
        (failure.status.as_u16(), (failure.shape)(&failure, "req-1"))
    }

    #[test]
    fn the_body_has_the_vendors_shape() {
        let (status, body) =
            written(FieldError::value("steps", "must be a whole number in [1, 8], got 9").into());
        assert_eq!(status, 400);
        assert_eq!(
            body,
            json!({
                "code": 400,
                "reason": "INVALID_REQUEST_BODY",
                "message": "steps must be a whole number in [1, 8], got 9",
                "metadata": {"field": "steps", "request_id": "req-1"},
            })
        );
    }

    #[test]
    fn an_unknown_model_names_its_field_and_what_is_near() {
        let (status, body) = written(
            ServiceError::ModelNotFound {
                role: ModelRole::Checkpoint,
                name: "dmeo".to_owned(),
                nearest: vec!["demo".to_owned()],
            }
            .into(),
        );
        assert_eq!((status, &body["reason"]), (400, &json!("MODEL_NOT_FOUND")));
        assert_eq!(
            body["message"],
            "model_name: there is no checkpoint named `dmeo`; did you mean `demo`?"
        );
        assert_eq!(body["metadata"]["field"], "model_name");
    }

    #[test]
    fn keys_and_queues_answer_as_the_vendors_table_says() {
        for (error, status, reason) in [
            (NovitaError::MissingKey, 400, "MISSING_API_KEY"),
            (NovitaError::WrongKey, 403, "INVALID_API_KEY"),
            (EdgeFault::UnknownPath.into(), 404, "API_NOT_FOUND"),
            (EdgeFault::WrongMethod.into(), 405, "API_NOT_ALLOWED"),
            (ServiceError::Overloaded.into(), 429, "RATE_LIMIT_EXCEEDED"),
            (
                ServiceError::ShareTaken { held: 9 }.into(),
                429,
                "RATE_LIMIT_EXCEEDED",
            ),
            (ServiceError::ShuttingDown.into(), 503, "CREATE_TASK_FAILED"),
            (ServiceError::KeyReused.into(), 409, "INVALID_REQUEST_BODY"),
            (
                BodyError::TooLarge { limit: 1 << 26 }.into(),
                413,
                "IMAGE_FILE_EXCEEDS_MAX_SIZE",
            ),
            (BodyError::TooSlow.into(), 408, "INVALID_REQUEST_BODY"),
            (BodyError::NoRoom.into(), 503, "CREATE_TASK_FAILED"),
            (ServiceError::ImageEmpty.into(), 400, "INVALID_IMAGE_FORMAT"),
        ] {
            let text = error.to_string();
            let (found_status, body) = written(error);
            assert_eq!(
                (found_status, &body["reason"]),
                (status, &json!(reason)),
                "{text}"
            );
            assert_eq!(body["code"], status);
        }
    }

    #[test]
    fn every_reason_has_its_page() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        for reason in [
            API_NOT_ALLOWED,
            API_NOT_FOUND,
            CREATE_TASK_FAILED,
            FEATURE_NOT_ALLOWED,
            ILLEGAL_PROMPT,
            IMAGE_EXCEEDS_MAX_RESOLUTION,
            IMAGE_FILE_EXCEEDS_MAX_SIZE,
            INVALID_API_KEY,
            INVALID_IMAGE_FORMAT,
            INVALID_REQUEST_BODY,
            MISSING_API_KEY,
            MODEL_NOT_FOUND,
            RATE_LIMIT_EXCEEDED,
            TASK_FAILED,
            TASK_NOT_FOUND,
        ] {
            let page = fs_err::read_to_string(format!("{folder}/{reason}.md")).unwrap();
            assert!(page.starts_with(&format!("# {reason}\n")), "{reason}");
        }
    }

    #[test]
    fn a_fault_of_ours_shows_nothing_of_its_cause() {
        let source = std::io::Error::other("/secret/path is on fire");
        let error = NovitaError::from(ServiceError::Internal {
            source: Box::new(source),
        });
        let failure = Failure::from(error);
        assert!(failure.cause.as_deref().unwrap().contains("/secret/path"));
        assert!(!(failure.shape)(&failure, "r").to_string().contains("secret"));
    }
}
