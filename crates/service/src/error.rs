//! What a use case can answer instead of its result. A dialect maps the variants to its own words.

use std::error::Error;
use std::time::Duration;

use pentimento_engine::PipelineError;
use pentimento_hub::Progress as FileProgress;
use pentimento_outbound::OutboundError;
use pentimento_types::{ErrorKind, HasKind, InputRole, JobFailure, JobId, JobState, Size, WebhookId};

/// The part that a named model plays in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelRole {
    /// The checkpoint.
    Checkpoint,
    /// A VAE beside the checkpoint's own.
    Vae,
    /// A LoRA.
    Lora,
    /// A textual inversion.
    Embedding,
    /// An IP-Adapter.
    IpAdapter,
    /// What sees images for it.
    ImageEncoder,
    /// What looks at finished images.
    SafetyChecker,
    /// What adds words to prompts.
    PromptEnhancer,
    /// What enlarges images.
    Upscaler,
}

impl std::fmt::Display for ModelRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "checkpoint",
            Self::Vae => "VAE",
            Self::Lora => "LoRA",
            Self::Embedding => "embedding",
            Self::IpAdapter => "IP-Adapter",
            Self::ImageEncoder => "image encoder",
            Self::SafetyChecker => "safety checker",
            Self::PromptEnhancer => "prompt enhancer",
            Self::Upscaler => "upscaler",
        })
    }
}

/// Why a use case failed. `Display` is short and safe to show to a caller: no paths and no panic texts; the sources,
/// printed by [`pentimento_types::describe_chain`], are for the log.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The catalogue has no such model.
    #[error("there is no {role} named `{name}`{}", suggestion(nearest))]
    ModelNotFound {
        /// What it was wanted for.
        role: ModelRole,
        /// The caller's name, shortened and without control characters.
        name: String,
        /// Names that look like it, best first; at most three.
        nearest: Vec<String>,
    },
    /// The catalogue has the model, and it cannot be put beside the checkpoint.
    #[error("the {role} `{name}` cannot be used with the checkpoint `{checkpoint}`: {reason}")]
    ModelUnfit {
        /// What it was wanted for.
        role: ModelRole,
        /// Its name in the catalogue.
        name: String,
        /// The checkpoint's.
        checkpoint: String,
        /// Safe to show.
        reason: String,
    },
    /// The same model is named twice, be it by two of its names, or by a preset and the request.
    #[error(
        "the {role} `{name}` is named twice (a preset's own count, too); name it once, with the strength that it is to have"
    )]
    ModelTwice {
        /// What it was wanted for.
        role: ModelRole,
        /// Its name in the catalogue.
        name: String,
    },
    /// The catalogue has the model, and its files cannot be used now.
    #[error("the {role} `{name}` cannot be used now: {reason}")]
    ModelUnavailable {
        /// What it was wanted for.
        role: ModelRole,
        /// Its name in the catalogue.
        name: String,
        /// Safe to show.
        reason: String,
    },
    /// Its files are being fetched or checked.
    #[error("the {role} `{name}` cannot be used yet: {}; try again in {} seconds", progress.doing(), retry_after.as_secs())]
    ModelOnItsWay {
        /// What it was wanted for.
        role: ModelRole,
        /// Its name in the catalogue.
        name: String,
        /// How far it is.
        progress: FileProgress,
        /// About how long it will take.
        retry_after: Duration,
    },
    /// A prompt of more tokens than the server takes.
    #[error("{field} has {found} tokens; at most {limit} are taken, so shorten it")]
    PromptTooLong {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// Its tokens.
        found: usize,
        /// The setting.
        limit: usize,
    },
    /// A weight in a prompt with which nothing could be computed.
    #[error(
        "{field} has a weight of {weight}; weights go from -{most} to {most}, and a bracket that is a letter is written \\("
    )]
    PromptWeight {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// What its brackets make.
        weight: f64,
        /// The strongest.
        most: f32,
    },
    /// No run can do what is asked for, whatever the picture is.
    #[error("{setting}: {problem}")]
    RunRefused {
        /// What of it: `steps`, `strength`, `scheduler`, `model`, `differential_diffusion`, or a key of the scheduler's
        /// configuration, `algorithm_type` for example.
        setting: &'static str,
        /// Safe to show.
        problem: String,
    },
    /// No picture of this size is made from noise.
    #[error(
        "a picture of {size} pixels cannot be made; its sides are multiples of 8, from 8 to {max_side}, and it has at most \
         {max_pixels} pixels"
    )]
    SizeRefused {
        /// What was asked for.
        size: Size,
        /// The dialect's longest side.
        max_side: u32,
        /// The dialect's limit, or the server's.
        max_pixels: u64,
    },
    /// No bytes at all.
    #[error("the picture is empty")]
    ImageEmpty,
    /// More bytes than the dialect's limit.
    #[error("the picture has {bytes} bytes; at most {limit} are allowed")]
    ImageTooLarge {
        /// Bytes of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A side is longer than the dialect's limit. Found in the header, before any pixel was decoded.
    #[error("the picture is {size} pixels; no side may be longer than {max_side}")]
    ImageTooManyPixels {
        /// Width and height that the file's header declares.
        size: Size,
        /// The limit.
        max_side: u32,
    },
    /// More pixels than the server decodes. Found in the header, before any pixel was decoded.
    #[error(
        "the picture has {pixels} pixels ({size}); at most {limit} are read here \
         (the server's setting PENTIMENTO_MAX_IMAGE_MEGAPIXELS), so send a smaller one"
    )]
    ImageMegapixels {
        /// Width and height that the file's header declares.
        size: Size,
        /// Their product.
        pixels: u64,
        /// The limit.
        limit: u64,
    },
    /// Reading the image would take more memory than the server has set aside for images.
    #[error(
        "reading the picture of {size} pixels takes up to {needed} bytes; this server has room for {limit} \
         (its setting PENTIMENTO_IMAGE_MEMORY), so send a smaller one"
    )]
    ImageWork {
        /// Width and height that the file's header declares.
        size: Size,
        /// Bytes while it is decoded.
        needed: u64,
        /// The setting.
        limit: u64,
    },
    /// More bytes of pixels, sent and made, than the server has room for.
    #[error(
        "the pictures of this request, sent and made, take {needed} bytes; this server has room for {limit}"
    )]
    ImageMemory {
        /// Bytes of the pixels of all of them.
        needed: u64,
        /// The setting.
        limit: u64,
    },
    /// Enlarged, the picture would have more pixels than the server makes.
    #[error(
        "the picture of {size} pixels, enlarged {times} times, has more than {limit} pixels; send a smaller one or enlarge it less"
    )]
    EnlargedTooLarge {
        /// Its own size.
        size: Size,
        /// How many times larger its sides were to be.
        times: u32,
        /// Pixels of a result.
        limit: u64,
    },
    /// Not a whole PNG, JPEG or WebP file.
    #[error("the picture cannot be read: {detail}")]
    ImageUndecodable {
        /// Safe to show.
        detail: String,
    },
    /// A mask that cannot be what the request wants of it.
    #[error("the mask {problem}")]
    MaskRefused {
        /// Safe to show.
        problem: String,
    },
    /// The picture is at an address, and nothing usable came from there.
    #[error("the picture could not be fetched: {reason}")]
    ImageNotFetched {
        /// Safe to show, and the same whatever listens at a refused address.
        reason: String,
        /// The kind that the fetch answered.
        kind: ErrorKind,
        /// What lies behind the reason; for the log.
        #[source]
        cause: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The end of the job cannot be told to this address.
    #[error("the address cannot be used: {reason}")]
    WebhookRefused {
        /// Safe to show; it depends on the address's text alone.
        reason: String,
    },
    /// There is no such webhook (any more), or it is somebody else's.
    #[error("there is no webhook {id}")]
    WebhookNotFound {
        /// The id asked for.
        id: WebhookId,
    },
    /// Something is wrong with an image that is not the one to start from.
    #[error("{fault}")]
    OfInput {
        /// Which image.
        role: InputRole,
        /// What is wrong with it.
        fault: Box<Self>,
    },
    /// As many jobs wait or run as are allowed.
    #[error("the server is busy; try again later")]
    Overloaded,
    /// One caller, or all together, keep as many bytes of pictures here as may be.
    #[error(
        "as many pictures are kept for later calls as this server has room for; try again in {} seconds, when the oldest are deleted",
        retry_after.as_secs()
    )]
    KeptPicturesFull {
        /// Until the oldest goes.
        retry_after: Duration,
    },
    /// As many bytes of pictures are on their way to callers as may be.
    #[error("the server is sending as many pictures as it has memory for; try again in a moment")]
    RepliesFull,
    /// One caller has its share of the jobs that are allowed.
    #[error(
        "{held} jobs of this key wait or run, which is its share; try again when some of them have ended"
    )]
    ShareTaken {
        /// Unfinished jobs of the key.
        held: usize,
    },
    /// The caller has used the key of this request for another one.
    #[error("Idempotency-Key was used for another request; send the very same body again, or take a new key")]
    KeyReused,
    /// One key has as many unfinished jobs as it may.
    #[error("at most {limit} jobs of this key may wait or run at once; try again when one of them has ended")]
    JobsAtOnce {
        /// The key's bound.
        limit: usize,
    },
    /// The server is stopping and takes nothing new.
    #[error("the server is shutting down; try again later")]
    ShuttingDown,
    /// Something that the server stands on is gone; an operator must look.
    #[error("the server takes nothing new: {reason}")]
    OutOfService {
        /// Safe to show.
        reason: &'static str,
    },
    /// Another machine took a request with the same idempotency key, and what became of it cannot be found out now.
    #[error(
        "another machine took a request with this idempotency key a moment ago and cannot be heard; send this one again in a \
         minute"
    )]
    KeyInDoubt,
    /// Of all machines that share jobs, none that runs them is heard.
    #[error("no worker of the cluster is there; send it again when one is")]
    NoWorker,
    /// None of them has a model that this one knows.
    #[error(
        "no worker of the cluster has the {role} \"{name}\" with what else the request needs; GET /v1/cluster says who has what"
    )]
    NotServed {
        /// What it was named for.
        role: ModelRole,
        /// Its name in the catalogue.
        name: String,
    },
    /// There is no such job (any more).
    #[error("there is no job {id}")]
    JobNotFound {
        /// The id asked for.
        id: JobId,
    },
    /// The job has ended, so it cannot be cancelled.
    #[error("the job has already ended")]
    JobEnded {
        /// The job.
        id: JobId,
        /// How it ended: succeeded or failed.
        state: JobState,
    },
    /// The job was cancelled, so it has no pictures.
    #[error("the job was cancelled")]
    JobCancelled,
    /// The job has not ended, so it has no pictures yet.
    #[error("the job has not ended yet")]
    JobUnfinished,
    /// The job failed; kind and text are those of the failure.
    #[error("{}", .0.message)]
    Failed(JobFailure),
    /// The link was right once.
    #[error("the link has expired")]
    LinkExpired,
    /// The link was not made by this server, or was changed.
    #[error("the link is not valid")]
    LinkInvalid,
    /// The link is right, and its picture has been deleted.
    #[error("the picture is no longer kept")]
    ImageGone,
    /// The picture could not be looked at, so it is not handed out.
    #[error("the picture could not be checked for unsafe content")]
    SafetyChecker(#[source] PipelineError),
    /// The operator hands out no unsafe picture.
    #[error("the safety checker of this server takes the picture for unsafe")]
    UnsafePicture,
    /// Storing or reading pictures or jobs failed.
    #[error("the server could not {what}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
        /// The kind that the source answered.
        kind: ErrorKind,
    },
    /// A fault of ours.
    #[error("the server has a fault; it was logged")]
    Internal {
        /// For the log: never part of `Display`.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl HasKind for ServiceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ModelNotFound { .. }
            | Self::ModelUnfit { .. }
            | Self::ModelTwice { .. }
            | Self::PromptTooLong { .. }
            | Self::PromptWeight { .. }
            | Self::RunRefused { .. }
            | Self::SizeRefused { .. }
            | Self::WebhookRefused { .. }
            | Self::ImageEmpty
            | Self::MaskRefused { .. }
            | Self::ImageUndecodable { .. } => ErrorKind::InvalidInput,
            Self::ImageTooLarge { .. }
            | Self::ImageTooManyPixels { .. }
            | Self::ImageMegapixels { .. }
            | Self::ImageWork { .. }
            | Self::EnlargedTooLarge { .. }
            | Self::ImageMemory { .. } => ErrorKind::TooLarge,
            Self::Overloaded | Self::RepliesFull | Self::ShareTaken { .. } => ErrorKind::Overloaded,
            Self::JobsAtOnce { .. } | Self::KeptPicturesFull { .. } => ErrorKind::QuotaExceeded,
            Self::ShuttingDown
            | Self::OutOfService { .. }
            | Self::KeyInDoubt
            | Self::NoWorker
            | Self::NotServed { .. }
            | Self::ModelUnavailable { .. }
            | Self::ModelOnItsWay { .. } => ErrorKind::Unavailable,
            Self::JobNotFound { .. } | Self::WebhookNotFound { .. } | Self::ImageGone => ErrorKind::NotFound,
            Self::JobEnded { .. } | Self::JobUnfinished | Self::KeyReused => ErrorKind::Conflict,
            Self::JobCancelled => ErrorKind::Cancelled,
            Self::Failed(failure) => failure.kind,
            Self::OfInput { fault, .. } => fault.kind(),
            Self::ImageNotFetched { kind, .. } => *kind,
            Self::LinkExpired | Self::LinkInvalid => ErrorKind::Forbidden,
            Self::SafetyChecker(source) => source.kind(),
            Self::UnsafePicture => ErrorKind::RejectedContent,
            Self::Store { kind, .. } => *kind,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}

impl ServiceError {
    /// The part that a model at fault was named for, which a dialect has a field for.
    #[must_use]
    pub const fn model_role(&self) -> Option<ModelRole> {
        if let Self::ModelNotFound { role, .. }
        | Self::ModelUnfit { role, .. }
        | Self::ModelTwice { role, .. }
        | Self::ModelUnavailable { role, .. }
        | Self::NotServed { role, .. }
        | Self::ModelOnItsWay { role, .. } = self
        {
            Some(*role)
        } else {
            None
        }
    }

    /// When the same call may work, where that is known better than for any other.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        /// A job ends some time; nobody knows when.
        const SOON: Duration = Duration::from_secs(2);
        if let Self::ModelOnItsWay { retry_after, .. } | Self::KeptPicturesFull { retry_after } = self {
            Some(*retry_after)
        } else if let Self::JobsAtOnce { .. } = self {
            Some(SOON)
        } else {
            None
        }
    }

    /// Says why a picture could not be fetched. The fetch's own text names neither the address nor what listens there.
    pub(crate) fn not_fetched(error: OutboundError) -> Self {
        let (reason, kind) = (error.to_string(), error.kind());
        let cause: Option<Box<dyn Error + Send + Sync>> = if let OutboundError::Unreachable(cause) = error {
            Some(Box::new(cause))
        } else if let OutboundError::BrokenOff(cause) = error {
            Some(Box::new(cause))
        } else if let OutboundError::NotUnpacked { source, .. } = error {
            Some(Box::new(source))
        } else {
            None
        };
        Self::ImageNotFetched { reason, kind, cause }
    }

    /// Why a prompt is refused.
    pub(crate) fn of_prompt(error: PipelineError) -> Self {
        if let PipelineError::PromptTooLong { field, found, limit } = error {
            return Self::PromptTooLong { field, found, limit };
        }
        if let PipelineError::PromptWeight { field, weight, most } = error {
            return Self::PromptWeight { field, weight, most };
        }
        Self::internal(error)
    }

    /// A fault of ours, with its cause for the log.
    pub(crate) fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal {
            source: source.into(),
        }
    }

    /// Wraps an error of a store: `what` completes "the server could not …".
    pub(crate) fn store<E: HasKind + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Store {
            what,
            kind: source.kind(),
            source: Box::new(source),
        }
    }
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    let names: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    format!("; did you mean {}?", names.join(" or "))
}
