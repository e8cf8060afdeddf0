//! Every failure of this dialect in its own words: `{"status": "error", "message": …}` with HTTP status 200, unless
//! `strict_http_status` asks for the statuses of the vendor's newest pages. The body is the same in both.

use axum::http::StatusCode;
use pentimento_service::{ModelRole, ServiceError};
use pentimento_types::{ErrorKind, HasKind, InputRole, describe_chain};
use serde_json::{Map, Value, json};

use super::fields::{
    ALGORITHM_TYPE, DIFFERENTIAL_DIFFUSION, EMBEDDINGS_MODEL, ENHANCE_PROMPT, INIT_IMAGE, IP_ADAPTER_ID,
    IP_ADAPTER_IMAGE, LORA_MODEL, MASK_IMAGE, MODEL_ID, NUM_INFERENCE_STEPS, SAFETY_CHECKER, SCHEDULER,
    STRENGTH, UPSCALER, VAE, WEBHOOK,
};
use crate::body::BodyError;
use crate::dialects::json::JsonError;
use crate::dialects::lenient::FieldError;
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;

/// The vendor's words, in all versions of its pages.
const RATE_LIMIT: &str = "Rate limit exceeded";

/// Why a call of this dialect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModelsLabError {
    /// Keys are configured and none was sent.
    #[error("Invalid API key")]
    MissingKey,
    /// The key is none of ours.
    #[error("Invalid API key")]
    WrongKey,
    /// A key of a caller, for a call of the operator.
    #[error("This API key may not do that")]
    NotOperator,
    /// The call failed before it came here.
    #[error(transparent)]
    Edge(#[from] EdgeFault),
    /// The body is not a JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The body is not the form that it says it is.
    #[error("{0}")]
    Form(String),
    /// Fields that cannot be accepted; at least one.
    #[error("{}", .0.first().map_or("a field cannot be accepted", |first| first.message.as_str()))]
    InvalidFields(Vec<FieldError>),
    /// A use case failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A use case failed that was about the image of this field.
    #[error("{error}")]
    OfImage {
        /// The field.
        field: &'static str,
        /// Why.
        error: Box<ServiceError>,
    },
    /// The job ended without images.
    #[error("{}", .failure)]
    JobFailed {
        /// Its integer id.
        number: u64,
        /// Why.
        failure: ServiceError,
    },
    /// No job has this number, or it is another caller's.
    #[error("Request not found")]
    UnknownJob,
    /// A call that exists upstream and not here.
    #[error("{call} is not offered by this server: {instead}")]
    NotOffered {
        /// Its name.
        call: String,
        /// What to do.
        instead: &'static str,
    },
}

impl From<BodyError> for ModelsLabError {
    fn from(error: BodyError) -> Self {
        Self::Edge(error.into())
    }
}

impl ModelsLabError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingKey => ErrorKind::Unauthenticated,
            Self::WrongKey | Self::NotOperator => ErrorKind::Forbidden,
            Self::Edge(fault) => fault.kind(),
            Self::Json(_) | Self::Form(_) | Self::InvalidFields(_) | Self::NotOffered { .. } => {
                ErrorKind::InvalidInput
            }
            Self::OfImage { error, .. } => error.kind(),
            Self::Service(error) | Self::JobFailed { failure: error, .. } => error.kind(),
            Self::UnknownJob => ErrorKind::NotFound,
        }
    }

    /// The status of the newest pages; most faults at the edge have their real one in both modes.
    fn status(&self, strict: bool) -> StatusCode {
        if let Self::Edge(fault) = self {
            // What the caller can put right is told in the body, as everything else is.
            let told = matches!(
                fault,
                EdgeFault::Body(BodyError::Broken | BodyError::Compressed { .. }) | EdgeFault::TooOften(_)
            );
            return if told && !strict {
                StatusCode::OK
            } else {
                fault.status()
            };
        }
        if strict && matches!(self, Self::Service(ServiceError::KeyReused)) {
            StatusCode::CONFLICT
        } else if strict {
            strict_status(self.kind())
        } else {
            StatusCode::OK
        }
    }

    /// The field at fault, and the sentence about it.
    fn message(&self) -> Value {
        match self {
            Self::InvalidFields(errors) => {
                let mut fields = Map::new();
                for error in errors {
                    let sentences = fields.entry(error.field.clone()).or_insert_with(|| json!([]));
                    if let Some(sentences) = sentences.as_array_mut() {
                        sentences.push(sentence(&error.field, &error.message).into());
                    }
                }
                Value::Object(fields)
            }
            Self::Json(JsonError::Invalid {
                field: Some(field),
                detail,
            }) => json!({field: [sentence(field, &format!("is not valid JSON: {detail}"))]}),
            Self::Json(_) | Self::Form(_) => "Invalid API Request".into(),
            Self::Service(error) => service_message(error, INIT_IMAGE.name),
            Self::Edge(EdgeFault::TooOften(_)) => RATE_LIMIT.into(),
            Self::OfImage { field, error } => service_message(error, field),
            Self::MissingKey
            | Self::WrongKey
            | Self::NotOperator
            | Self::Edge(_)
            | Self::JobFailed { .. }
            | Self::UnknownJob
            | Self::NotOffered { .. } => self.to_string().into(),
        }
    }

    fn tip(&self) -> Option<String> {
        match self {
            Self::MissingKey => Some("send your key as \"key\" in the body".to_owned()),
            Self::WrongKey => Some("the key is not one of this server's".to_owned()),
            Self::Json(_) | Self::Form(_) => Some(self.to_string()),
            Self::Service(ServiceError::ModelNotFound { .. }) => {
                Some("get_all_models lists the names".to_owned())
            }
            Self::Service(ServiceError::Overloaded) => {
                Some("the server has as many jobs as it takes; try again later".to_owned())
            }
            Self::Service(error @ (ServiceError::ShareTaken { .. } | ServiceError::JobsAtOnce { .. })) => {
                Some(error.to_string())
            }
            Self::Edge(EdgeFault::TooOften(exceeded)) => Some(exceeded.to_string()),
            Self::NotOperator => {
                Some("the operator's keys are made with `pentimento keys new LABEL --admin`".to_owned())
            }
            Self::Service(_)
            | Self::OfImage { .. }
            | Self::Edge(_)
            | Self::InvalidFields(_)
            | Self::JobFailed { .. }
            | Self::UnknownJob
            | Self::NotOffered { .. } => None,
        }
    }

    /// The failure on its way out.
    pub(super) fn failure(self, strict: bool) -> Failure {
        let (kind, status) = (self.kind(), self.status(strict));
        let message = self.message();
        let mut details = json!({"status": "error", "message": message});
        if let Self::JobFailed { number, .. } = &self {
            details["status"] = "failed".into();
            details["id"] = json!(number);
            details["output"] = json!([]);
        }
        if matches!(self, Self::UnknownJob) {
            details["status"] = "failed".into();
            details["id"] = "".into();
            details["output"] = json!([]);
        }
        if message.is_string() {
            details["messege"] = message;
        }
        if let Some(tip) = self.tip() {
            // Both spellings stand in the vendor's pages.
            details["tips"] = tip.clone().into();
            details["tip"] = tip.into();
        }
        let mut failure = Failure::new((kind, status), kind.as_str(), self.to_string(), body);
        if let Some(error) = self.of_service() {
            failure.retry_after(error.retry_after());
        } else if let Self::Edge(fault) = &self {
            failure.retry_after(fault.retry_after());
        }
        if matches!(self, Self::JobFailed { .. }) {
            // The same call would tell of the same end, however often it is made: a client that fetches until there is none of
            // this would never stop.
            failure.retry_after_s = None;
        }
        if failure.retry_after_s.is_some() {
            details["retry_after"] = json!(failure.retry_after_s);
        }
        failure.details = Some(details);
        let cause = if let Self::JobFailed { failure, .. } = &self {
            Some(failure)
        } else {
            self.of_service()
        };
        failure.cause = cause.map(|error| describe_chain(error)).or(failure.cause);
        failure
    }

    /// Why a use case failed.
    fn of_service(&self) -> Option<&ServiceError> {
        if let Self::OfImage { error, .. } = self {
            return Some(error);
        }
        if let Self::Service(error) = self {
            Some(error)
        } else {
            None
        }
    }
}

const fn strict_status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidInput
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::TooLarge
        | ErrorKind::RejectedContent => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated | ErrorKind::Forbidden => StatusCode::UNAUTHORIZED,
        ErrorKind::QuotaExceeded | ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable | ErrorKind::BadModel => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded
        | ErrorKind::Cancelled
        | ErrorKind::OutOfDeviceMemory
        | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// "init_image is required" is "The init image field is required."
fn sentence(field: &str, message: &str) -> String {
    let rest = message.strip_prefix(field).unwrap_or(message).trim();
    let end = if rest.ends_with('.') { "" } else { "." };
    format!("The {} field {rest}{end}", field.replace('_', " "))
}

fn service_message(error: &ServiceError, image: &str) -> Value {
    let about = |field: &str| {
        let text = sentence(field, &format!("cannot be used: {error}"));
        json!({field: [text]})
    };
    match error {
        ServiceError::ModelNotFound { role, name, nearest } => {
            let hint = match nearest.first() {
                Some(near) => format!("; did you mean {near}?"),
                None => String::new(),
            };
            format!("Model not found: {name} ({}){hint}", field_of(*role)).into()
        }
        ServiceError::ModelUnfit { role, .. }
        | ServiceError::ModelTwice { role, .. }
        | ServiceError::ModelUnavailable { role, .. } => about(field_of(*role)),
        // As the vendor says that a model is not there yet: a text, and no mistake of the caller's.
        ServiceError::ModelOnItsWay { .. } => error.to_string().into(),
        ServiceError::ImageEmpty
        | ServiceError::ImageTooLarge { .. }
        | ServiceError::ImageTooManyPixels { .. }
        | ServiceError::ImageMegapixels { .. }
        | ServiceError::ImageWork { .. }
        | ServiceError::ImageMemory { .. }
        | ServiceError::EnlargedTooLarge { .. }
        | ServiceError::MaskRefused { .. }
        | ServiceError::ImageUndecodable { .. } => about(image),
        ServiceError::RunRefused { setting, problem } => {
            let (field, problem) = match *setting {
                "steps" => (NUM_INFERENCE_STEPS.name, problem.clone()),
                "strength" => (STRENGTH.name, problem.clone()),
                "algorithm_type" => (ALGORITHM_TYPE.name, problem.clone()),
                "scheduler" => (SCHEDULER.name, problem.clone()),
                "model" => (MODEL_ID.name, problem.clone()),
                "differential_diffusion" => (DIFFERENTIAL_DIFFUSION.name, problem.clone()),
                // Nothing that the caller has named, but for the scheduler on this checkpoint.
                key => (SCHEDULER.name, format!("{key}: {problem}")),
            };
            json!({field: [sentence(field, &format!("cannot be used: {problem}"))]})
        }
        ServiceError::PromptTooLong { field, .. } | ServiceError::PromptWeight { field, .. } => {
            json!({*field: [sentence(field, &error.to_string())]})
        }
        ServiceError::ImageNotFetched { reason, .. } => {
            format!("Unable to fetch image from provided URL ({image}): {reason}").into()
        }
        ServiceError::Overloaded | ServiceError::ShareTaken { .. } => RATE_LIMIT.into(),
        ServiceError::JobsAtOnce { limit } => {
            format!("{RATE_LIMIT}. Maximum {limit} queued requests allowed.").into()
        }
        ServiceError::Internal { .. } | ServiceError::Store { .. } | ServiceError::SafetyChecker(_) => {
            "Internal server error. Please try again.".into()
        }
        ServiceError::WebhookRefused { .. } => {
            json!({WEBHOOK.name: [sentence(WEBHOOK.name, &error.to_string().replace("the address ", ""))]})
        }
        ServiceError::OfInput { role, fault } => service_message(fault, image_field(*role)),
        ServiceError::UnsafePicture => about(image),
        ServiceError::ShuttingDown
        | ServiceError::OutOfService { .. }
        | ServiceError::KeyInDoubt
        | ServiceError::NoWorker
        | ServiceError::NotServed { .. }
        // Of calls with a picture nobody sees it.
        | ServiceError::SizeRefused { .. }
        | ServiceError::KeyReused
        | ServiceError::WebhookNotFound { .. }
        | ServiceError::JobNotFound { .. }
        | ServiceError::JobEnded { .. }
        | ServiceError::JobCancelled
        | ServiceError::JobUnfinished
        | ServiceError::Failed(_)
        | ServiceError::KeptPicturesFull { .. }
        | ServiceError::RepliesFull
        | ServiceError::LinkExpired
        | ServiceError::LinkInvalid
        | ServiceError::ImageGone => error.to_string().into(),
    }
}

/// The field that an image came in.
const fn image_field(role: InputRole) -> &'static str {
    match role {
        InputRole::Init => INIT_IMAGE.name,
        InputRole::Mask => MASK_IMAGE.name,
        InputRole::IpAdapter => IP_ADAPTER_IMAGE.name,
    }
}

const fn field_of(role: ModelRole) -> &'static str {
    match role {
        ModelRole::Checkpoint => MODEL_ID.name,
        ModelRole::Vae => VAE.name,
        ModelRole::Lora => LORA_MODEL.name,
        ModelRole::Embedding => EMBEDDINGS_MODEL.name,
        ModelRole::IpAdapter | ModelRole::ImageEncoder => IP_ADAPTER_ID.name,
        ModelRole::SafetyChecker => SAFETY_CHECKER.name,
        ModelRole::PromptEnhancer => ENHANCE_PROMPT.name,
        ModelRole::Upscaler => UPSCALER.name,
    }
}

fn body(failure: &Failure, request_id: &str) -> Value {
    let mut body = failure.details.clone().unwrap_or_else(
        || json!({"status": "error", "message": failure.message, "messege": failure.message}),
    );
    body["request_id"] = request_id.into();
    body
}

/// A fault outside the calls, such as an unknown path, in this dialect's shape and with its real status.
pub(crate) fn edge_failure(fault: EdgeFault) -> Failure {
    let kind = fault.kind();
    let mut failure = Failure::new((kind, fault.status()), kind.as_str(), fault.to_string(), body);
    failure.retry_after(fault.retry_after());
    failure.cause = fault.cause();
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: impl Into<ModelsLabError>, strict: bool) -> (u16, Value) {
        let failure = error.into().failure(strict);
        (failure.status.as_u16(), (failure.shape)(&failure, "req-1"))
    }

    #[test]
    fn validation_is_a_map_of_sentences() {
        let refused = || {
            ModelsLabError::InvalidFields(vec![
                FieldError::value("prompt", "is required"),
                FieldError::value("init_image", "is required"),
            ])
        };
        let (status, body) = written(refused(), false);
        assert_eq!(status, 200);
        assert_eq!(
            body,
            json!({
                "status": "error",
                "message": {
                    "prompt": ["The prompt field is required."],
                    "init_image": ["The init image field is required."],
                },
                "request_id": "req-1",
            })
        );
        assert_eq!(written(refused(), true), (400, body));
    }

    #[test]
    fn texts_are_given_in_both_spellings_and_statuses_only_when_asked() {
        for (error, strict, message) in [
            (ModelsLabError::MissingKey, 401, "Invalid API key"),
            (ModelsLabError::WrongKey, 401, "Invalid API key"),
            (JsonError::NotAnObject.into(), 400, "Invalid API Request"),
            (ServiceError::Overloaded.into(), 429, "Rate limit exceeded"),
            (
                ServiceError::ShareTaken { held: 9 }.into(),
                429,
                "Rate limit exceeded",
            ),
            (
                ServiceError::ShuttingDown.into(),
                503,
                "the server is shutting down; try again later",
            ),
            (
                ServiceError::ModelNotFound {
                    role: ModelRole::Lora,
                    name: "x".to_owned(),
                    nearest: vec!["y".to_owned()],
                }
                .into(),
                400,
                "Model not found: x (lora_model); did you mean y?",
            ),
        ] {
            let failure: Failure = error.failure(true);
            assert_eq!(failure.status.as_u16(), strict, "{message}");
            let body = (failure.shape)(&failure, "r");
            assert_eq!(
                (&body["message"], &body["messege"]),
                (&json!(message), &json!(message))
            );
            assert_eq!(body["status"], "error");
        }
    }

    #[test]
    fn the_image_at_fault_is_named() {
        let (_, body) = written(
            ServiceError::OfInput {
                role: InputRole::Mask,
                fault: Box::new(ServiceError::ImageEmpty),
            },
            false,
        );
        assert_eq!(
            body["message"]["mask_image"][0],
            "The mask image field cannot be used: the picture is empty."
        );
        let (_, body) = written(ServiceError::ImageEmpty, false);
        assert!(body["message"]["init_image"][0].is_string());
    }

    #[test]
    fn a_fault_of_ours_shows_nothing_of_its_cause() {
        let source = std::io::Error::other("/secret/path is on fire");
        let (status, body) = written(
            ServiceError::Internal {
                source: Box::new(source),
            },
            false,
        );
        assert_eq!(
            (status, &body["message"]),
            (200, &json!("Internal server error. Please try again."))
        );
        assert!(!body.to_string().contains("secret"));
    }

    #[test]
    fn a_job_that_has_failed_asks_nobody_to_fetch_it_again() {
        let busy = || ServiceError::Internal {
            source: "the device was lost".into(),
        };
        let (_, refused) = written(busy(), false);
        assert_eq!(refused["retry_after"], 2);
        let (_, ended) = written(
            ModelsLabError::JobFailed {
                number: 7,
                failure: busy(),
            },
            false,
        );
        assert_eq!((&ended["status"], &ended["id"]), (&json!("failed"), &json!(7)));
        assert_eq!(ended["retry_after"], Value::Null);
    }
}
