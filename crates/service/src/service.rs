//! The door of the use cases. Cheap to clone; every clone is the same service. Each use case has a file of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pentimento_catalog::Catalog;
use pentimento_engine::EngineHandle;
use pentimento_jobs::{JobCounts, JobQueue, JobStore};
use pentimento_outbound::ImageFetcher;
use pentimento_storage::{ImageStore, LinkSigner};
use pentimento_types::{Clock, Job, JobId, JobOutcome, StoredImage};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::progress::ProgressHub;
use crate::{ServiceError, maintenance, worker};

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
    /// How long pictures are kept at least, for dialects whose links live longer; never less than `link_ttl`.
    /// Pictures are deleted ten minutes after it.
    pub keep_pictures: Duration,
    /// How long an ended job can be fetched.
    pub keep_jobs: Duration,
    /// Jobs that may be in the engine at once, so that they can share forwards; never more than the engine admits.
    pub running_jobs: usize,
    /// Pictures of new requests that are decoded at once.
    pub decoding_pictures: usize,
    /// How often a job is started before it fails for good, at least 1.
    pub max_attempts: u32,
    /// How long a worker may be silent before its job is given to another.
    pub lease: Duration,
    /// Time between two looks for what can be deleted.
    pub sweep_interval: Duration,
}

/// What the service is put together from.
#[derive(Clone, Debug)]
pub struct ServiceParts {
    /// The models that a request can name.
    pub catalog: Arc<Catalog>,
    /// The door to the device.
    pub engine: EngineHandle,
    /// Job records.
    pub store: Arc<dyn JobStore>,
    /// Who runs next.
    pub queue: Arc<dyn JobQueue>,
    /// Pictures.
    pub images: ImageStore,
    /// Signs links.
    pub links: LinkSigner,
    /// Gets input pictures from callers' addresses.
    pub fetcher: ImageFetcher,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The engine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineSummary {
    /// False when the device thread has ended or cannot work.
    pub healthy: bool,
    /// Jobs inside.
    pub jobs: usize,
    /// Rows of the UNet batch that these jobs bring.
    pub rows: u32,
    /// Names of the models in memory.
    pub resident_models: Vec<String>,
}

/// The service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Whether a request sent now can be expected to run: not stopping, engine healthy, job store readable.
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
    pub(crate) inner: Arc<Inner>,
}

/// How far the service is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Takes and runs jobs.
    Open,
    /// Takes nothing new, runs what it has.
    Draining,
    /// Runs nothing any more.
    Stopped,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) engine: EngineHandle,
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) queue: Arc<dyn JobQueue>,
    pub(crate) images: ImageStore,
    pub(crate) links: LinkSigner,
    pub(crate) fetcher: ImageFetcher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: ServiceConfig,
    pub(crate) runtime: Handle,
    pub(crate) stage: watch::Sender<Stage>,
    /// Held for reading while a job is being stored, so that a shutdown sees every job that was accepted.
    pub(crate) admission: RwLock<()>,
    pub(crate) decoding: Semaphore,
    pub(crate) progress: ProgressHub,
    /// How many callers wait for a job.
    pub(crate) waiters: Mutex<HashMap<JobId, usize>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Service {
    /// Starts the workers and the sweeper. Must be called inside a tokio runtime, which must live as long as the service.
    #[must_use]
    pub fn start(parts: ServiceParts, config: ServiceConfig) -> Self {
        let ServiceParts {
            catalog,
            engine,
            store,
            queue,
            images,
            links,
            fetcher,
            clock,
        } = parts;
        let inner = Arc::new(Inner {
            catalog,
            engine,
            store,
            queue,
            images,
            links,
            fetcher,
            clock,
            runtime: Handle::current(),
            stage: watch::Sender::new(Stage::Open),
            admission: RwLock::default(),
            decoding: Semaphore::new(config.decoding_pictures.max(1)),
            progress: ProgressHub::default(),
            waiters: Mutex::default(),
            tasks: Mutex::default(),
            config,
        });
        let tasks = vec![
            tokio::spawn(worker::run(Arc::clone(&inner))),
            tokio::spawn(maintenance::run(Arc::clone(&inner))),
        ];
        *inner.tasks() = tasks;
        Self { inner }
    }

    /// The models that a request can name.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// What health and readiness checks need to know.
    pub async fn status(&self) -> ServiceStatus {
        let engine = self.inner.engine.status();
        let stopping = self.inner.stage() != Stage::Open;
        let jobs = self.inner.store.counts().await;
        ServiceStatus {
            ready: !stopping && engine.healthy && jobs.is_ok(),
            stopping,
            jobs: jobs.unwrap_or_default(),
            engine: EngineSummary {
                healthy: engine.healthy,
                jobs: engine.jobs,
                rows: engine.rows,
                resident_models: engine.resident_models,
            },
        }
    }
}

impl Inner {
    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(crate) fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns when nothing may run any more.
    pub(crate) async fn stopped(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives in `self`, so the channel cannot close here.
        let _ = stage.wait_for(|stage| *stage == Stage::Stopped).await;
    }
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
