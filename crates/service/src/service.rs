//! The door of the use cases. Cheap to clone; every clone is the same service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pentimento_catalog::Catalog;
use pentimento_types::{ApiKeyId, GenerationRequest, ImageKey, Job, JobId, JobOutcome, StoredImage};

use crate::ServiceError;

/// How much of a picture a dialect takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputLimits {
    /// Longest side in pixels.
    pub max_side: u32,
    /// Size of the file in bytes.
    pub max_bytes: u64,
}

/// Settings of the use cases and of the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Life of a link, counted from the end of its job.
    pub link_ttl: Duration,
    /// Jobs that may be in the engine at once; the engine's own admission limit or less.
    pub running_jobs: usize,
    /// How often a job is started before it fails for good.
    pub max_attempts: u32,
    /// How long a worker may be silent before its job is given to another.
    pub lease: Duration,
}

/// A signed address of a picture on this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLink {
    /// `/files/<key>?expires=…&signature=…`, to be put behind the server's public address.
    pub path: String,
    /// What is left of the link's life.
    pub ttl: Duration,
}

/// What a valid link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// The whole file.
    pub bytes: Bytes,
    /// Its media type.
    pub content_type: &'static str,
    /// Its object name.
    pub key: ImageKey,
}

/// Jobs by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting for a worker.
    pub queued: usize,
    /// In a worker's hands.
    pub running: usize,
    /// How many of both together are accepted.
    pub limit: usize,
}

/// The engine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineSummary {
    /// False when the device thread has ended or cannot work.
    pub healthy: bool,
    /// Jobs inside.
    pub jobs: usize,
    /// Rows of the UNet batch that these jobs bring.
    pub rows: usize,
    /// Names of the models in memory.
    pub resident_models: Vec<String>,
}

/// The service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Whether a request sent now would be taken: not stopping, engine healthy.
    pub ready: bool,
    /// Whether the server is stopping.
    pub stopping: bool,
    /// Jobs.
    pub jobs: JobCounts,
    /// The engine.
    pub engine: EngineSummary,
}

/// The use cases. Clones share everything.
#[derive(Clone, Debug)]
pub struct Service {
    catalog: Arc<Catalog>,
}

impl Service {
    /// Checks everything that can be checked now, stores the job, and gives its id out.
    ///
    /// Every named model is resolved and the picture is decoded within `limits` before anything is stored.
    ///
    /// # Errors
    /// The `Model…`, `Image…`, `NotSupportedYet`, `Overloaded` and `ShuttingDown` variants.
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn submit(
        &self,
        _owner: ApiKeyId,
        _request: GenerationRequest,
        _limits: InputLimits,
    ) -> Result<JobId, ServiceError> {
        Err(ServiceError::ShuttingDown)
    }

    /// Returns the job once it has ended, however it ended; see [`finished_images`].
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`].
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn wait(&self, id: JobId) -> Result<Job, ServiceError> {
        Err(ServiceError::JobNotFound { id })
    }

    /// The same for a synchronous dialect: when this future is dropped before the job has ended and nobody else is
    /// waiting for the job, the job is cancelled.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`].
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn wait_or_cancel(&self, id: JobId) -> Result<Job, ServiceError> {
        Err(ServiceError::JobNotFound { id })
    }

    /// The job as it is now.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`].
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn fetch(&self, id: JobId) -> Result<Job, ServiceError> {
        Err(ServiceError::JobNotFound { id })
    }

    /// Cancels a job that has not ended; cancelling twice is fine.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`], [`ServiceError::JobEnded`].
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn cancel(&self, id: JobId) -> Result<Job, ServiceError> {
        Err(ServiceError::JobNotFound { id })
    }

    /// A signed link to a finished picture of `job`; its life is counted from the end of the job.
    #[must_use]
    pub fn link(&self, _job: &Job, image: &StoredImage) -> ImageLink {
        ImageLink {
            path: format!("/files/{}", image.key),
            ttl: Duration::ZERO,
        }
    }

    /// The picture behind a link. `path` is what follows `/files/` (that prefix may also be there), `query` what
    /// follows the question mark, both as they came.
    ///
    /// # Errors
    /// [`ServiceError::LinkInvalid`], [`ServiceError::LinkExpired`], [`ServiceError::ImageGone`].
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn open_link(&self, _path: &str, _query: &str) -> Result<LinkedFile, ServiceError> {
        Err(ServiceError::LinkInvalid)
    }

    /// The models that a request can name.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What health and readiness checks need to know.
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn status(&self) -> ServiceStatus {
        ServiceStatus::default()
    }

    /// Takes nothing new, lets accepted jobs end for at most `grace`, then fails the rest with a reason.
    #[expect(clippy::unused_async, reason = "body follows")]
    pub async fn shutdown(&self, _grace: Duration) {}
}

/// The pictures of a job that [`Service::wait`] returned.
///
/// # Errors
/// [`ServiceError::Failed`], [`ServiceError::JobCancelled`], or [`ServiceError::JobUnfinished`].
pub fn finished_images(job: &Job) -> Result<&[StoredImage], ServiceError> {
    match &job.outcome {
        Some(JobOutcome::Succeeded(images)) => Ok(images),
        Some(JobOutcome::Failed(failure)) => Err(ServiceError::Failed(failure.clone())),
        Some(JobOutcome::Cancelled) => Err(ServiceError::JobCancelled),
        None => Err(ServiceError::JobUnfinished),
    }
}
