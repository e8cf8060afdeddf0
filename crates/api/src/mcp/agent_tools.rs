//! The tools: a picture, a job, its end, and the models. Thin over the use cases that every door has.
//!
//! What goes wrong is an answer of the tool, in words that an agent can act on, and no error of the protocol, which agents do not
//! get to see.

use bytes::Bytes;
use pentimento_service::{ServiceError, finished_images};
use pentimento_types::{ApiKeyId, ErrorKind, Job, JobId, JobOrigin};
use serde_json::{Value, json};

use super::fields::{GENERATE, ID, NONE, OF_JOB, WAIT};
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::body::{self, BodyMemory, off_thread};
use crate::dialects::field::{Table, describe};
use crate::dialects::json::Fields;
use crate::dialects::lenient::{FieldError, name};
use crate::dialects::openai::{self, OpenAiError};
use crate::failure::Failure;
use crate::openapi::object_of;
use crate::{jobs, models};

/// Which dialect the record of a job names.
const NAME: &str = "mcp";

/// One of them.
pub(super) struct Tool {
    pub(super) name: &'static str,
    text: &'static str,
    pub(super) arguments: Table,
    changes_nothing: bool,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Generate,
    Status,
    Cancel,
    Models,
}

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "generate_image",
        text: "Makes images from words, or changes an image. Answers with the images and with links to them.",
        arguments: GENERATE,
        changes_nothing: false,
        kind: Kind::Generate,
    },
    Tool {
        name: "job_status",
        text: "How far a job is, how long it will take, and links to its images when it has ended.",
        arguments: OF_JOB,
        changes_nothing: true,
        kind: Kind::Status,
    },
    Tool {
        name: "cancel_job",
        text: "Cancels a job that has not ended.",
        arguments: OF_JOB,
        changes_nothing: false,
        kind: Kind::Cancel,
    },
    Tool {
        name: "list_models",
        text: "The checkpoints, LoRAs and VAEs that generate_image can name, and whether they can be used now.",
        arguments: NONE,
        changes_nothing: true,
        kind: Kind::Models,
    },
];

/// All tools as `tools/list` has them.
pub(super) fn described() -> Vec<Value> {
    let described = |tool: &Tool| {
        json!({
            "name": tool.name,
            "description": tool.text,
            "inputSchema": object_of(&describe(&[tool.arguments])),
            "annotations": {"readOnlyHint": tool.changes_nothing},
        })
    };
    TOOLS.iter().map(described).collect()
}

/// What a tool answers.
pub(super) struct Answer {
    /// In base64, with their media types.
    pub(super) images: Vec<(Bytes, &'static str)>,
    /// What there is to know; null where something went wrong.
    pub(super) about: Value,
    /// What is said instead of that.
    pub(super) text: Option<String>,
    /// Of what went wrong.
    pub(super) failure: Option<ErrorKind>,
}

impl Answer {
    const fn of(about: Value) -> Self {
        Self {
            images: Vec::new(),
            about,
            text: None,
            failure: None,
        }
    }

    /// Nobody reads it, since its caller has said so.
    pub(super) fn cancelled() -> Self {
        Self {
            text: Some("cancelled".to_owned()),
            failure: Some(ErrorKind::Cancelled),
            ..Self::of(Value::Null)
        }
    }

    fn refusal(error: OpenAiError) -> Self {
        let failure = Failure::from(error);
        let cause = failure.cause.as_deref().unwrap_or(&failure.message);
        tracing::info!(
            kind = failure.kind.as_str(),
            code = failure.code,
            "a tool refused: {cause}"
        );
        let again = failure
            .retry_after_s
            .map(|seconds| format!("; try again in {seconds} seconds"));
        Self {
            text: Some(format!("{}{}", failure.message, again.unwrap_or_default())),
            failure: Some(failure.kind),
            ..Self::of(Value::Null)
        }
    }
}

/// What one call may do.
pub(super) struct AgentTools {
    app: AppState,
    owner: ApiKeyId,
    base: BaseUrl,
    origin: JobOrigin,
}

impl AgentTools {
    pub(super) fn new(app: AppState, (owner, base, origin): (ApiKeyId, BaseUrl, JobOrigin)) -> Self {
        Self {
            app,
            owner,
            base,
            origin,
        }
    }

    /// When this future is dropped, a job that it waits for is cancelled.
    pub(super) async fn call(self, tool: &Tool, (arguments, memory): (Fields, BodyMemory)) -> Answer {
        let answered = match tool.kind {
            Kind::Generate => self.generate(arguments, memory).await,
            Kind::Status => self.status(arguments).await,
            Kind::Cancel => self.cancel(arguments).await,
            Kind::Models => Ok(Answer::of(json!({"models": models::described(&self.app).await}))),
        };
        answered.unwrap_or_else(Answer::refusal)
    }

    async fn status(&self, arguments: Fields) -> Result<Answer, OpenAiError> {
        let job = self.app.service.fetch_own(&self.owner, id(arguments)?).await?;
        Ok(self.described(&job))
    }

    async fn cancel(&self, arguments: Fields) -> Result<Answer, OpenAiError> {
        let job = self.app.service.cancel_own(&self.owner, id(arguments)?).await?;
        Ok(self.described(&job))
    }

    fn described(&self, job: &Job) -> Answer {
        Answer::of(jobs::described(&self.app.service, &self.base, job))
    }

    async fn generate(self, mut fields: Fields, mut memory: BodyMemory) -> Result<Answer, OpenAiError> {
        let waits = openai::flag(&WAIT, &mut fields)?;
        // A model's name says nothing of what an agent can look at.
        let asks_how = fields.has(openai::fields::RESPONSE_FORMAT.name);
        let service = self.app.service.clone();
        let parsed = off_thread(move || {
            let parsed = openai::read_arguments(fields, service.catalog())?;
            memory.shrink_to(body::inline_bytes(&parsed.inputs));
            Ok::<_, OpenAiError>((parsed, memory))
        });
        let (parsed, memory) = parsed.await?;
        let (has_links, ignored) = (asks_how && parsed.style.links, parsed.ignored.clone());
        let who = (self.owner, self.origin);
        let service = self.app.service;
        let id = service
            .submit(openai::submission(NAME, who, parsed, None))
            .await?;
        // The service has its own copy of the images by now.
        drop(memory);
        if !waits {
            let about = json!({"job_id": id.to_string(), "state": "queued", "ignored": ignored});
            return Ok(Answer::of(about));
        }
        let job = service.wait_or_cancel(id).await?;
        let mut images = Vec::new();
        let mut links = Vec::new();
        let mut is_short = false;
        for image in finished_images(&job)? {
            let link = service.link(&job, image);
            links.push(json!({
                "url": self.base.join(&link.path),
                "seconds_valid": link.ttl.as_secs(),
                "size": image.size.to_string(),
                "seed": image.seed,
            }));
            if has_links || is_short {
                continue;
            }
            match service.picture_text(image).await {
                Ok(text) => images.push((text, image.format.content_type())),
                // They are made, and a link is there for each of them.
                Err(ServiceError::RepliesFull) => is_short = true,
                Err(error) => return Err(error.into()),
            }
        }
        let mut notes: Vec<String> = job.notes.iter().map(ToString::to_string).collect();
        if is_short {
            let short = "The server has no room for all images in this answer now; open their links.";
            notes.push(short.to_owned());
        }
        let about = json!({"job_id": id.to_string(), "images": links, "notes": notes, "ignored": ignored});
        Ok(Answer {
            images,
            ..Answer::of(about)
        })
    }
}

fn id(mut fields: Fields) -> Result<JobId, OpenAiError> {
    let refuse = || FieldError::value(ID.name, "must be the id of a job: job_ and 32 hexadecimal digits");
    let text = name(ID.name, fields.take(ID.name))?.ok_or_else(refuse)?;
    Ok(text.parse().map_err(|_| refuse())?)
}
