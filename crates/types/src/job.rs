//! A stored request with a life: the record of a job, version 2. Only `jobs::state_machine` changes a job's state.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{
    ApiKeyId, Delivery, ErrorKind, ImageFormat, ImageKey, Inputs, JobId, Recipe, SafetyAction, Size,
};

/// Where a job is in its life. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Stored, and its input images are still being fetched.
    Fetching,
    /// Stored, and waiting for a worker.
    Queued,
    /// A worker holds a lease on it.
    Running,
    /// Its images are stored.
    Succeeded,
    /// It ended without images; the outcome says why.
    Failed,
    /// The caller did not want it any more.
    Cancelled,
}

impl JobState {
    /// Whether nothing can change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Fetching | Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Evaluations done and to do, over all images of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Evaluations that have run.
    pub done: u32,
    /// Evaluations of the whole job; 0 until it has been prepared.
    pub total: u32,
}

/// What was found in one finished image. None: nobody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// Whether a safety checker found content that it was to look for.
    pub nsfw: Option<bool>,
    /// How sure the checker is that it is unsafe, in thousandths.
    pub score: Option<u16>,
    /// What was done with an unsafe image before it was stored.
    pub action: Option<SafetyAction>,
}

/// A finished image in the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Object name.
    pub key: ImageKey,
    /// Encoding.
    pub format: ImageFormat,
    /// Pixels.
    pub size: Size,
    /// The seed of this very image.
    pub seed: u64,
    /// What was found in it.
    #[serde(default)]
    pub findings: Findings,
}

/// Why a job failed: a kind for programs and a text that may be shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    /// The kind.
    pub kind: ErrorKind,
    /// Short and safe to show: no paths, no panic text.
    pub message: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// All images, in order.
    Succeeded(Vec<StoredImage>),
    /// The reason.
    Failed(JobFailure),
    /// Cancelled by its caller.
    Cancelled,
}

/// The version of [`Job`] that this program writes. A store that holds records migrates older ones.
pub const JOB_SCHEMA_VERSION: u32 = 2;

/// Which dialect a job came through, and what that dialect wants to find again when it answers for the job later.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DialectTag {
    /// The dialect's name, `novita` for example.
    pub name: String,
    /// Opaque to everybody but the dialect.
    #[serde(default)]
    pub note: Option<String>,
    /// The number by which the dialect's callers name the job, where they name it by one. It stands for one job of the
    /// dialect, and tells nothing about others.
    #[serde(default)]
    pub number: Option<u64>,
}

/// The caller's own name for a request, so that a request that is sent again is no second job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The name. It belongs to the job's owner; the same one of somebody else is another one.
    pub key: String,
    /// What the request was, as the dialect digests it: the same name for something else is a mistake of the caller's.
    pub digest: String,
}

/// Which call brought a job, for whoever follows it through logs and traces.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOrigin {
    /// The id of the call; empty where there was none.
    pub request_id: String,
    /// The span that the job's own is a child of, as W3C Trace Context writes it.
    pub traceparent: Option<String>,
}

/// What a caller should be told about how a request was read, beside its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobNote {
    /// The colours of the mask have no shape, so its alpha channel was taken.
    MaskIsAlpha,
    /// The mask leaves every pixel as it is.
    MaskKeepsEverything,
    /// Some tensors of a LoRA belong to no layer of the checkpoint.
    LoraUnmatched {
        /// The LoRA's name in the catalogue.
        lora: String,
        /// How many tensors.
        count: u64,
        /// The names of the first ones, shortened and without control characters.
        first: Vec<String>,
    },
    /// An embedding is named, and its word is in neither prompt.
    EmbeddingUnused {
        /// The embedding's name in the catalogue.
        embedding: String,
    },
    /// A prompt has the word of an embedding that nobody has named and that cannot be used, so the word is read as text.
    EmbeddingLeftOut {
        /// The embedding's name in the catalogue.
        embedding: String,
        /// Safe to show.
        reason: String,
    },
    /// The checkpoint is no latent consistency model, and the catalogue has no LCM-LoRA for its base.
    NoLcmLora {
        /// The checkpoint's name in the catalogue.
        checkpoint: String,
    },
    /// The request wants its images looked at, and the operator has switched the safety checker off.
    SafetyCheckerOff,
    /// The request wants unsafe images handed out, and the operator does not allow it.
    SafetyCheckerRequired,
}

impl std::fmt::Display for JobNote {
    /// A whole sentence.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LoraUnmatched { lora, count, first } => {
                let (verb, them) = if *count == 1 { ("belongs", "it was") } else { ("belong", "they were") };
                let more = if *count > first.len() as u64 { ", …" } else { "" };
                return write!(
                    f,
                    "{count} of the tensors of the LoRA {lora} {verb} to no layer of this checkpoint, and {them} left out: \
                     {}{more}.",
                    first.join(", ")
                );
            }
            Self::EmbeddingUnused { embedding } => {
                return write!(
                    f,
                    "The embedding {embedding} has no effect, because neither prompt has its word."
                );
            }
            Self::EmbeddingLeftOut { embedding, reason } => {
                return write!(
                    f,
                    "The prompt's word for the embedding {embedding} was read as plain text, because it cannot be used here: \
                     {reason}."
                );
            }
            Self::NoLcmLora { checkpoint } => {
                return write!(
                    f,
                    "The checkpoint {checkpoint} is no latent consistency model, and the server has no LCM-LoRA for its \
                     base: few steps may give a poor image."
                );
            }
            Self::SafetyCheckerOff => "The safety checker is switched off on this server: no image was looked at.",
            Self::SafetyCheckerRequired => {
                "This server looks at every image, and hands out no unsafe one as it is."
            }
            Self::MaskIsAlpha => {
                "The colours of the mask have no shape, so its alpha channel was used: opaque is repainted."
            }
            Self::MaskKeepsEverything => {
                "The mask marks nothing that may change, so the picture is given back as it came."
            }
        })
    }
}

/// Who goes first among jobs that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// What a dialect without priorities gives.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// One job as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// [`JOB_SCHEMA_VERSION`] when it was written.
    pub schema_version: u32,
    /// Its id, given out only after it is stored.
    pub id: JobId,
    /// Who asked.
    pub owner: ApiKeyId,
    /// Through which door.
    pub dialect: DialectTag,
    /// Which call brought it.
    #[serde(default)]
    pub origin: JobOrigin,
    /// What decides the pixels.
    pub recipe: Recipe,
    /// The input images, as references into the object store.
    pub inputs: Inputs<ImageKey>,
    /// How the finished images are handed over.
    pub delivery: Delivery,
    /// What the caller should be told about how the request was read.
    #[serde(default)]
    pub notes: Vec<JobNote>,
    /// Who goes first.
    pub priority: Priority,
    /// About how much of the device's time it takes, as [`Recipe::work`] counts it; 0 where nobody knows.
    #[serde(default)]
    pub work: u64,
    /// Whether only the machine that took it runs it, where several share jobs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays: bool,
    /// The caller's own name for this request. Gone once the job has failed in a way that another try may not.
    #[serde(default)]
    pub idempotency: Option<Idempotency>,
    /// When it is to be given up unfinished.
    pub deadline: Option<SystemTime>,
    /// Before this time it is not started (again).
    pub not_before: Option<SystemTime>,
    /// Where it is in its life.
    pub state: JobState,
    /// How many times it has been started. It tells attempts apart, and limits nothing: a job may be put back as often as
    /// the server is stopped.
    pub attempt: u32,
    /// How many of its attempts ended with the process, or in silence.
    #[serde(default)]
    pub crashes: u32,
    /// How many of its attempts ended by a fault that the next one may not meet.
    #[serde(default)]
    pub faults: u32,
    /// Set in the final states.
    pub outcome: Option<JobOutcome>,
    /// When it was stored.
    pub created_at: SystemTime,
    /// When its latest attempt began; once it has succeeded, when the device began with it.
    pub started_at: Option<SystemTime>,
    /// When it reached a final state.
    pub finished_at: Option<SystemTime>,
}

impl Job {
    /// A job that waits for its first attempt, with nothing special about it.
    #[must_use]
    pub fn queued(id: JobId, created_at: SystemTime, recipe: Recipe, inputs: Inputs<ImageKey>) -> Self {
        Self {
            schema_version: JOB_SCHEMA_VERSION,
            id,
            owner: ApiKeyId::anonymous(),
            dialect: DialectTag::default(),
            origin: JobOrigin::default(),
            recipe,
            inputs,
            delivery: Delivery::default(),
            notes: Vec::new(),
            priority: Priority::default(),
            work: 0,
            stays: false,
            idempotency: None,
            deadline: None,
            not_before: None,
            state: JobState::Queued,
            attempt: 0,
            crashes: 0,
            faults: 0,
            outcome: None,
            created_at,
            started_at: None,
            finished_at: None,
        }
    }
}
