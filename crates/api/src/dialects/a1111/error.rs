//! Every failure of this dialect in its own words.
//!
//! A field at fault is answered as FastAPI does, with status 422 and `{"detail": [{"loc", "msg", "type"}]}`; everything else as
//! A1111's own handler does, `{"error", "detail", "body", "errors"}`. Both have our `request_id` beside that.

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pentimento_service::{ModelRole, ServiceError};
use pentimento_types::{ErrorKind, HasKind, InputRole, describe_chain};
use serde_json::{Value, json};

use super::fields::{
    DENOISING_STRENGTH, IMAGE, INIT_IMAGES, MASK, PROMPT, SAMPLER_NAME, SD_MODEL_CHECKPOINT, SD_VAE, STEPS,
    UPSCALER_1, WIDTH,
};
use crate::body::BodyError;
use crate::dialects::json::JsonError;
use crate::dialects::lenient::FieldError;
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;
use crate::idempotency;

/// What FastAPI raises for a wrong field.
const VALIDATION: &str = "RequestValidationError";
/// What A1111 raises by itself.
const HTTP: &str = "HTTPException";
const RUNTIME: &str = "RuntimeError";

/// Why a call of this dialect failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum A1111Error {
    /// Keys are configured and none was sent.
    #[error(
        "Not authenticated: send an API key as the password of HTTP Basic, or as `Authorization: Bearer <key>`"
    )]
    MissingKey,
    /// The key is none of ours.
    #[error("Incorrect username or password")]
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
    /// The same about one picture of several.
    #[error("init_images[{index}]: {error}")]
    OfPicture {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        error: Box<ServiceError>,
    },
    /// The same about the picture of a call that makes no job.
    #[error("{0}")]
    OfImage(Box<ServiceError>),
    /// A call that A1111 has and this server has not.
    #[error("{call} is not offered by this server: {instead}")]
    NotOffered {
        /// Its path below `/sdapi/v1`.
        call: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
}

impl From<BodyError> for A1111Error {
    fn from(error: BodyError) -> Self {
        Self::Edge(error.into())
    }
}

impl HasKind for A1111Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingKey => ErrorKind::Unauthenticated,
            Self::WrongKey => ErrorKind::Forbidden,
            Self::Edge(fault) => fault.kind(),
            Self::Json(_) | Self::InvalidField(_) => ErrorKind::InvalidInput,
            Self::Service(error) => error.kind(),
            Self::OfPicture { error, .. } | Self::OfImage(error) => error.kind(),
            Self::NotOffered { .. } => ErrorKind::NotFound,
        }
    }
}

/// The one table from our kinds to this dialect. A new kind does not compile until it has a line here.
const fn answer_for(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::InvalidInput => (StatusCode::UNPROCESSABLE_ENTITY, VALIDATION),
        ErrorKind::Conflict => (StatusCode::CONFLICT, HTTP),
        ErrorKind::Unauthenticated | ErrorKind::Forbidden => (StatusCode::UNAUTHORIZED, HTTP),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, HTTP),
        ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, HTTP),
        ErrorKind::RejectedContent => (StatusCode::BAD_REQUEST, HTTP),
        ErrorKind::QuotaExceeded | ErrorKind::Overloaded => (StatusCode::TOO_MANY_REQUESTS, HTTP),
        ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, RUNTIME),
        ErrorKind::Unavailable | ErrorKind::BadModel => (StatusCode::SERVICE_UNAVAILABLE, RUNTIME),
        ErrorKind::Cancelled | ErrorKind::OutOfDeviceMemory | ErrorKind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, RUNTIME)
        }
    }
}

impl A1111Error {
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Edge(fault) => (fault.status(), HTTP),
            Self::NotOffered { .. } => (StatusCode::NOT_IMPLEMENTED, HTTP),
            Self::MissingKey
            | Self::WrongKey
            | Self::Json(_)
            | Self::InvalidField(_)
            | Self::Service(_)
            | Self::OfPicture { .. }
            | Self::OfImage(_) => {
                let by_kind = answer_for(self.kind());
                if self.field().is_some() && by_kind.0.is_client_error() {
                    (StatusCode::UNPROCESSABLE_ENTITY, VALIDATION)
                } else {
                    by_kind
                }
            }
        }
    }

    /// The field of the body that is at fault; a place in it has points and brackets.
    fn field(&self) -> Option<String> {
        match self {
            Self::Json(JsonError::Invalid { field, .. }) => field.clone(),
            Self::InvalidField(error) => Some(error.field.clone()),
            Self::Service(error) => field_of(error, INIT_IMAGES.name),
            Self::OfPicture { index, error } => field_of(error, &format!("{}[{index}]", INIT_IMAGES.name)),
            Self::OfImage(error) => field_of(error, IMAGE.name),
            Self::MissingKey | Self::WrongKey | Self::Edge(_) | Self::Json(_) | Self::NotOffered { .. } => {
                None
            }
        }
    }

    fn service_error(&self) -> Option<&ServiceError> {
        match self {
            Self::Service(error) => Some(error),
            Self::OfPicture { error, .. } | Self::OfImage(error) => Some(error),
            Self::MissingKey
            | Self::WrongKey
            | Self::Edge(_)
            | Self::Json(_)
            | Self::InvalidField(_)
            | Self::NotOffered { .. } => None,
        }
    }

    /// For the log only.
    fn cause(&self) -> Option<String> {
        if let Self::Edge(fault) = self {
            return fault.cause();
        }
        self.service_error().map(|error| describe_chain(error))
    }
}

fn field_of(error: &ServiceError, image: &str) -> Option<String> {
    if let Some(role) = error.model_role() {
        return Some(
            match role {
                ModelRole::Checkpoint => SD_MODEL_CHECKPOINT.name,
                ModelRole::Vae => SD_VAE.name,
                ModelRole::Lora | ModelRole::Embedding => PROMPT.name,
                ModelRole::Upscaler => UPSCALER_1.name,
                // Its bodies name none.
                ModelRole::IpAdapter
                | ModelRole::ImageEncoder
                | ModelRole::SafetyChecker
                | ModelRole::PromptEnhancer => return None,
            }
            .to_owned(),
        );
    }
    if let ServiceError::OfInput { role, fault } = error {
        let name = if *role == InputRole::Mask {
            MASK.name
        } else {
            image
        };
        return field_of(fault, name);
    }
    if let ServiceError::PromptTooLong { field, .. } | ServiceError::PromptWeight { field, .. } = error {
        return Some((*field).to_owned());
    }
    if let ServiceError::RunRefused { setting, .. } = error {
        let field = match *setting {
            "steps" => STEPS.name,
            "strength" => DENOISING_STRENGTH.name,
            // Nothing that the caller has named, but for the sampler on this checkpoint.
            _ => SAMPLER_NAME.name,
        };
        return Some(field.to_owned());
    }
    if matches!(error, ServiceError::SizeRefused { .. }) {
        return Some(WIDTH.name.to_owned());
    }
    if matches!(error, ServiceError::KeyReused) {
        return Some(idempotency::HEADER.to_owned());
    }
    let of_image = matches!(
        error,
        ServiceError::ImageEmpty
            | ServiceError::ImageTooLarge { .. }
            | ServiceError::ImageTooManyPixels { .. }
            | ServiceError::ImageMegapixels { .. }
            | ServiceError::ImageWork { .. }
            | ServiceError::ImageMemory { .. }
            | ServiceError::EnlargedTooLarge { .. }
            | ServiceError::MaskRefused { .. }
            | ServiceError::ImageUndecodable { .. }
    );
    of_image.then(|| image.to_owned())
}

impl From<A1111Error> for Failure {
    fn from(error: A1111Error) -> Self {
        let (status, code) = error.answer();
        let field = error.field();
        let message = match &field {
            Some(field) if !error.to_string().starts_with(field) => format!("{field}: {error}"),
            _ => error.to_string(),
        };
        let mut failure = Self::new((error.kind(), status), code, message, body);
        failure.field = field;
        failure.cause = error.cause();
        if let Some(error) = error.service_error() {
            failure.retry_after(error.retry_after());
        } else if let A1111Error::Edge(fault) = &error {
            failure.retry_after(fault.retry_after());
        }
        failure
    }
}

/// A fault outside the calls, such as an unknown path, in this dialect's shape.
pub(crate) fn edge_failure(fault: EdgeFault) -> Failure {
    A1111Error::from(fault).into()
}

fn body(failure: &Failure, request_id: &str) -> Value {
    if failure.code == VALIDATION {
        let place = failure.field.as_deref().map(place).unwrap_or_default();
        let place: Vec<Value> = std::iter::once(json!("body")).chain(place).collect();
        return json!({
            "detail": [{"loc": place, "msg": failure.message, "type": "value_error"}],
            "request_id": request_id,
        });
    }
    json!({
        "error": failure.code,
        "detail": failure.message,
        "body": "",
        "errors": "",
        "request_id": request_id,
    })
}

/// `init_images[1]` as `"init_images", 1`.
fn place(field: &str) -> Vec<Value> {
    let parts = field.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    parts
        .map(|part| {
            part.parse::<u32>()
                .map_or_else(|_| json!(part), |index| json!(index))
        })
        .collect()
}

impl IntoResponse for A1111Error {
    fn into_response(self) -> Response {
        let asks = matches!(self, Self::MissingKey | Self::WrongKey);
        let mut response = Failure::from(self).into_response();
        if asks {
            let basic = HeaderValue::from_static("Basic");
            response.headers_mut().insert(WWW_AUTHENTICATE, basic);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: A1111Error) -> (u16, Value) {
        let failure = Failure::from(error);
        (failure.status.as_u16(), (failure.shape)(&failure, "req-1"))
    }

    #[test]
    fn a_wrong_field_has_fastapis_shape() {
        let error = FieldError::value("override_settings.sd_vae", "must be a string, got 3");
        assert_eq!(
            written(error.into()),
            (
                422,
                json!({
                    "detail": [{
                        "loc": ["body", "override_settings", "sd_vae"],
                        "msg": "override_settings.sd_vae must be a string, got 3",
                        "type": "value_error",
                    }],
                    "request_id": "req-1",
                })
            )
        );
        let (status, found) = written(A1111Error::OfPicture {
            index: 1,
            error: Box::new(ServiceError::ImageEmpty),
        });
        assert_eq!(
            (status, &found["detail"][0]["loc"]),
            (422, &json!(["body", "init_images", 1]))
        );
    }

    #[test]
    fn everything_else_has_the_web_uis() {
        for (error, status, name) in [
            (A1111Error::MissingKey, 401, "HTTPException"),
            (A1111Error::WrongKey, 401, "HTTPException"),
            (EdgeFault::UnknownPath.into(), 404, "HTTPException"),
            (ServiceError::Overloaded.into(), 429, "HTTPException"),
            (ServiceError::ShuttingDown.into(), 503, "RuntimeError"),
            (ServiceError::JobCancelled.into(), 500, "RuntimeError"),
            (
                BodyError::TooLarge { limit: 1 << 26 }.into(),
                413,
                "HTTPException",
            ),
            (
                A1111Error::NotOffered {
                    call: "interrogate",
                    instead: "nothing here describes pictures",
                },
                501,
                "HTTPException",
            ),
        ] {
            let text = error.to_string();
            let (found_status, body) = written(error);
            assert_eq!((found_status, &body["error"]), (status, &json!(name)), "{text}");
            assert_eq!(body["detail"], text);
            assert_eq!((&body["body"], &body["errors"]), (&json!(""), &json!("")));
        }
    }

    #[test]
    fn models_and_masks_are_fields_of_this_dialect() {
        let missing = |role| ServiceError::ModelNotFound {
            role,
            name: "x".to_owned(),
            nearest: Vec::new(),
        };
        for (error, field) in [
            (missing(ModelRole::Checkpoint), "sd_model_checkpoint"),
            (missing(ModelRole::Vae), "sd_vae"),
            (missing(ModelRole::Lora), "prompt"),
            (
                ServiceError::OfInput {
                    role: InputRole::Mask,
                    fault: Box::new(ServiceError::ImageEmpty),
                },
                "mask",
            ),
            (
                ServiceError::RunRefused {
                    setting: "strength",
                    problem: "x".to_owned(),
                },
                "denoising_strength",
            ),
        ] {
            let (status, body) = written(error.into());
            assert_eq!((status, &body["detail"][0]["loc"][1]), (422, &json!(field)));
        }
    }

    #[test]
    fn a_fault_of_ours_shows_nothing_of_its_cause() {
        let source = std::io::Error::other("/secret/path is on fire");
        let error = A1111Error::from(ServiceError::Internal {
            source: Box::new(source),
        });
        let failure = Failure::from(error);
        assert!(failure.cause.as_deref().unwrap().contains("/secret/path"));
        assert!(!(failure.shape)(&failure, "r").to_string().contains("secret"));
    }
}
