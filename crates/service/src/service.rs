//! The door of the use cases. Cheap to clone; every clone is the same service. Each use case has a file of its own.

use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pentimento_catalog::{Catalog, ModelEntry};
use pentimento_engine::{DeviceUse, Precision};
use pentimento_jobs::JobCounts;
use pentimento_types::{ApiKeyId, Job, JobId, JobOutcome, Progress, StoredImage};
use prometheus_client::registry::Registry;

use crate::config::{ServiceConfig, ServiceParts};
use crate::forecast::Standing;
use crate::inner::{Inner, Lifecycle};
use crate::metrics::ServiceMetrics;
use crate::traces::Traces;
use crate::{ServiceError, deadlines, maintenance, residency, webhooks, worker};

/// Before a task that panicked is started anew.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// What was said to [`Service::set_outage`].
    pub outage: Option<&'static str>,
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

impl Service {
    /// Starts the workers, the sweeper and what else goes on by itself. Must be called inside a tokio runtime, which must live as long as the service.
    #[must_use]
    pub fn start(parts: ServiceParts, config: ServiceConfig) -> Self {
        let inner = Arc::new(Inner::new(parts, config));
        // Nobody else knows of it yet, so the set is free.
        if let Ok(mut tasks) = inner.tasks.try_lock() {
            if inner.config.runs_jobs {
                tasks.spawn(supervised("worker", Arc::clone(&inner), worker::run));
            }
            tasks.spawn(supervised("sweeper", Arc::clone(&inner), maintenance::run));
            tasks.spawn(supervised("deadlines", Arc::clone(&inner), deadlines::run));
            tasks.spawn(supervised("models", Arc::clone(&inner), residency::run));
            tasks.spawn(supervised("webhooks", Arc::clone(&inner), webhooks::run));
        }
        Self { inner }
    }

    /// The models that a request can name.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// The job of this owner that a dialect's callers name by this number.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub async fn find_by_number(
        &self,
        owner: &ApiKeyId,
        dialect: &str,
        number: u64,
    ) -> Result<Option<Job>, ServiceError> {
        let found = self.inner.store.find_by_number(dialect, number).await;
        let found = found.map_err(ServiceError::store("read the job"))?;
        Ok(found.filter(|job| job.owner == *owner))
    }

    /// How far a job is that runs in this process; None for every other one.
    #[must_use]
    pub fn progress(&self, id: JobId) -> Option<Progress> {
        self.inner.progress.get(id)
    }

    /// How long it will be until a job has ended, as far as can be told from what the device has needed so far. None for a
    /// job that does not wait or run in this process.
    #[must_use]
    pub fn time_left(&self, id: JobId) -> Option<Duration> {
        self.inner.progress.time_left(id)
    }

    /// Which of the waiting jobs this one is, from 1, about: other owners' jobs take turns with it. None for a job that does not
    /// wait in this process.
    #[must_use]
    pub fn queue_position(&self, id: JobId) -> Option<usize> {
        self.inner.progress.position(id)
    }

    /// Where each of these jobs stands, at the cost of asking for one.
    #[must_use]
    pub fn standings(&self, ids: &[JobId]) -> Vec<Standing> {
        self.inner.progress.standings(ids)
    }

    /// How long a job that came now would wait.
    #[must_use]
    pub fn queue_time(&self) -> Duration {
        self.inner.progress.queue_time()
    }

    /// Takes and begins nothing while something that the server stands on is gone: `reason`, safe to show, says what. None
    /// ends that.
    pub fn set_outage(&self, reason: Option<&'static str>) {
        *self.inner.outage.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// What has become of the jobs, for whoever counts something about them.
    #[must_use]
    pub fn metrics(&self) -> &ServiceMetrics {
        &self.inner.metrics
    }

    /// Whether spans go to somebody who collects traces.
    #[must_use]
    pub fn traces(&self) -> Traces {
        self.inner.traces
    }

    /// Puts what is counted here and below into a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.metrics.register(registry);
        self.inner.engine.register_metrics(registry);
    }

    /// What computes, each device as it is now, the first one first.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceUse> {
        self.inner.engine.devices()
    }

    /// The numbers in which a checkpoint computes here.
    #[must_use]
    pub fn precision(&self, checkpoint: &ModelEntry) -> Precision {
        self.inner.engine.precision(checkpoint)
    }

    /// What health and readiness checks need to know.
    pub async fn status(&self) -> ServiceStatus {
        let engine = self.inner.engine.status();
        let stopping = self.inner.lifecycle() != Lifecycle::Open;
        let outage = self.inner.outage();
        let jobs = self.inner.store.counts().await;
        ServiceStatus {
            ready: !stopping && outage.is_none() && engine.healthy && jobs.is_ok(),
            stopping,
            outage,
            jobs: jobs.unwrap_or_default(),
            engine: EngineSummary {
                healthy: engine.healthy,
                jobs: engine.jobs,
                rows: engine.rows,
                resident_models: self.inner.engine.resident_models(),
            },
        }
    }
}

/// Runs a task that must live as long as the service, and starts it anew when it panics: without it jobs would wait for
/// ever while the server says that it is ready. What a worker held is claimed again when its lease is over.
async fn supervised<F>(name: &'static str, inner: Arc<Inner>, task: fn(Arc<Inner>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(panic) = tokio::spawn(task(Arc::clone(&inner))).await {
        tracing::error!(%panic, "the {name} panicked and is started anew");
        let pause = inner.clock.now() + PAUSE;
        tokio::select! {
            () = inner.clock.sleep_until(pause) => {}
            () = inner.stopped() => return,
        }
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
