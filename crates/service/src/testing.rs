//! The whole service over a fake device, in memory: for tests of what is built on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pentimento_catalog::Catalog;
use pentimento_engine::testing::FakeExecutor;
use pentimento_engine::{BatchPolicy, Engine, EngineThread, Executor, TokenCounter};
use pentimento_hub::{Hub, HubSettings};
use pentimento_jobs::{JobLimits, MemoryJobs};
use pentimento_storage::{ImageStore, LinkSigner, StorageConfig};
use pentimento_types::{Clock, Job, MemoryBudget, MemoryLedger, SystemClock};

use crate::image_codec::{ManifestSigner, Marks};
use crate::{
    AddressGuard, KeyRing, LastingLink, SafetySettings, Service, ServiceConfig, ServiceParts, Traces,
    WebhookBodies, WebhookSecret, image_fetcher, webhook_sender,
};

/// How a [`TestService`] is made.
#[derive(Clone, Debug)]
pub struct TestConfig {
    /// Models that can be named.
    pub catalog: Catalog,
    /// Where models are fetched from; None is a hub that cannot be asked, and no cache.
    pub hub: Option<HubSettings>,
    /// The time for everything.
    pub clock: Arc<dyn Clock>,
    /// Jobs that may wait or run.
    pub unfinished_jobs: usize,
    /// What each use of memory may take.
    pub memory: MemoryBudget,
    /// What each key may take, beside being taken at all.
    pub keys: Arc<KeyRing>,
    /// What signs finished files.
    pub signer: Option<Arc<ManifestSigner>>,
    /// Settings of the service.
    pub service: ServiceConfig,
}

impl Default for TestConfig {
    fn default() -> Self {
        Self {
            catalog: Catalog::embedded_only(),
            hub: None,
            clock: Arc::new(SystemClock),
            unfinished_jobs: 64,
            memory: MemoryBudget::UNBOUNDED,
            keys: Arc::new(KeyRing::new([])),
            signer: None,
            service: ServiceConfig {
                link_ttl: Duration::from_secs(3600),
                keep_jobs: Duration::from_secs(86_400),
                running_jobs: 32,
                decoding_images: 4,
                max_prompt_tokens: 300,
                max_image_pixels: 64_000_000,
                max_attempts: 2,
                job_deadline: Duration::from_secs(86_400),
                save_patience: Duration::ZERO,
                lease: Duration::from_secs(30),
                safety: SafetySettings::default(),
                marks: Marks::ALL,
                watermark: false,
                prompt_enhancer: None,
                sweep_interval: Duration::from_secs(60),
                runs_jobs: true,
            },
        }
    }
}

/// A running service with the parts that a test may look at.
#[derive(Debug)]
pub struct TestService {
    /// The service.
    pub service: Service,
    /// Its parts; the store and the queue are one table.
    pub parts: ServiceParts,
    /// The device thread.
    pub engine: EngineThread,
}

impl TestService {
    /// Starts over a fake device with default settings. Call it inside a tokio runtime.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    #[must_use]
    pub fn start(executor: FakeExecutor) -> Self {
        Self::start_with(executor, TestConfig::default())
    }

    /// The same with any device and settings.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    #[must_use]
    pub fn start_with(executor: impl Executor, config: TestConfig) -> Self {
        let TestConfig {
            catalog,
            hub,
            clock,
            unfinished_jobs,
            memory,
            keys,
            signer,
            service,
        } = config;
        let memory = MemoryLedger::new(memory);
        let (policy, account) = (BatchPolicy::default(), Arc::clone(&memory));
        let (handle, engine) = Engine::start_within(executor, policy, Arc::clone(&clock), account)
            .expect("the operating system gives a thread");
        let limits = JobLimits::in_number(unfinished_jobs, 1000);
        let jobs = Arc::new(MemoryJobs::new(Arc::clone(&clock), limits));
        let hub = hub.unwrap_or_else(|| HubSettings {
            offline: true,
            ..HubSettings::new("/nowhere/hub".into(), "/nowhere/downloads".into())
        });
        let hub = Hub::new(hub, Arc::clone(&clock)).expect("the client needs nothing of this machine");
        let parts = ServiceParts {
            catalog: Arc::new(catalog),
            hub,
            engine: handle,
            store: Arc::clone(&jobs) as Arc<_>,
            queue: jobs.queue(),
            outbox: jobs,
            images: ImageStore::open(&StorageConfig::Memory).expect("memory needs no folder"),
            links: LinkSigner::new([7; 32]),
            fetcher: image_fetcher(AddressGuard::allowing_private(), 1 << 20),
            webhooks: webhook_sender(AddressGuard::allowing_private(), &WebhookSecret::new([7; 32])),
            webhook_bodies: Arc::new(JobIds),
            tokens: TokenCounter::default(),
            memory,
            keys,
            traces: Traces::default(),
            signer,
            nodes: None,
            clock,
        };
        let service = Service::start(parts.clone(), service);
        Self {
            service,
            parts,
            engine,
        }
    }
}

/// A dialect that tells nothing but which job has ended.
#[derive(Debug)]
struct JobIds;

impl WebhookBodies for JobIds {
    fn body(&self, job: &Job, _: LastingLink<'_>) -> Bytes {
        job.id.to_string().into()
    }
}
