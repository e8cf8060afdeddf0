//! What all use cases and workers share: the parts, the settings, and how far the service is from its end.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pentimento_catalog::Catalog;
use pentimento_engine::{EmbeddingFiles, EngineHandle, TokenCounter};
use pentimento_hub::Hub;
use pentimento_jobs::{AgeClock, JobQueue, JobStore, Outbox};
use pentimento_outbound::{ImageFetcher, WebhookSender};
use pentimento_storage::{ImageStore, LinkSigner};
use pentimento_types::{Clock, ImageKey, Job, JobId, KeyedSemaphores, MemoryLedger};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::task::JoinSet;

use crate::ModelRole;
use crate::admitted::AdmittedJobs;
use crate::config::{ServiceConfig, ServiceParts};
use crate::decoding_shares::DecodingShares;
use crate::enlarging::Enlarging;
use crate::image_codec::ManifestSigner;
use crate::job_marks::JobMarks;
use crate::kept_pictures::KeptPictures;
use crate::key_ring::KeyRing;
use crate::loads::Loads;
use crate::looks::Looks;
use crate::metrics::ServiceMetrics;
use crate::nodes::AllNodes;
use crate::progress::ProgressHub;
use crate::safety::Safety;
use crate::traces::Traces;
use crate::watched::Watched;
use crate::webhook_bodies::WebhookBodies;

/// How many plans of one model are made at once: so many threads can a disk without an answer hold, however many callers
/// come and go.
pub(crate) const PLANS_AT_ONCE: usize = 4;
/// Requests whose prompts are enhanced at once.
const ENHANCED_AT_ONCE: usize = 2;

/// How far the service is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lifecycle {
    /// Takes and runs jobs.
    Open,
    /// Takes nothing new, runs what it has.
    Draining,
    /// Runs nothing any more.
    Stopped,
}

impl Lifecycle {
    /// Whether no further attempt begins, where a store keeps the jobs that wait or does not.
    const fn leaves_jobs(self, keeps_jobs: bool) -> bool {
        match self {
            Self::Open => false,
            Self::Draining => keeps_jobs,
            Self::Stopped => true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) hub: Hub,
    pub(crate) engine: EngineHandle,
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) queue: Arc<dyn JobQueue>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) images: ImageStore,
    pub(crate) links: LinkSigner,
    pub(crate) fetcher: ImageFetcher,
    pub(crate) webhooks: WebhookSender,
    pub(crate) webhook_bodies: Arc<dyn WebhookBodies>,
    pub(crate) tokens: TokenCounter,
    pub(crate) embedding_files: EmbeddingFiles,
    pub(crate) looks: Arc<Looks>,
    pub(crate) loads: Loads,
    pub(crate) admitted: AdmittedJobs,
    pub(crate) memory: Arc<MemoryLedger>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) traces: Traces,
    pub(crate) signer: Option<Arc<ManifestSigner>>,
    pub(crate) nodes: AllNodes,
    pub(crate) clock: Arc<dyn Clock>,
    /// When this service was put together.
    pub(crate) started: SystemTime,
    age_clock: AgeClock,
    pub(crate) config: ServiceConfig,
    pub(crate) runtime: Handle,
    pub(crate) lifecycle: watch::Sender<Lifecycle>,
    /// Why nothing can be taken or run for now.
    pub(crate) outage: Mutex<Option<&'static str>>,
    /// Held for reading while a job is being stored, so that a shutdown sees every job that was accepted.
    pub(crate) admission: Arc<RwLock<()>>,
    pub(crate) decoding: Arc<Semaphore>,
    pub(crate) decoding_shares: DecodingShares,
    /// Who may plan on a model, by its part and its name: each plan reads the model's disk, which may not answer.
    pub(crate) plan_turns: KeyedSemaphores<(ModelRole, String)>,
    /// Held while an image is decoded for which the account has no room.
    pub(crate) decoding_beyond: Arc<Semaphore>,
    /// Held by the attempt that keeps an input's manifest for which the account has no room.
    pub(crate) manifests_beyond: Arc<Semaphore>,
    /// Whose turn it is to look for a watermark, which takes a while: those who do must not hold the turns of those who decode.
    pub(crate) looking_for_marks: Arc<Semaphore>,
    /// Held by the attempt whose turn it is to get into the engine; the others stand in line for it.
    pub(crate) door: tokio::sync::Mutex<()>,
    /// Held by the attempt at a job whose earlier attempt ended with the process. Were they run together, the next end could
    /// not be told from its companions' fault.
    pub(crate) suspects: tokio::sync::Mutex<()>,
    /// The jobs whose images this process is fetching.
    pub(crate) fetching: JobMarks,
    /// Those that an attempt of this process has, which ends them.
    pub(crate) attempts: JobMarks,
    /// Those of them that the device has done its part of.
    pub(crate) past_device: JobMarks,
    pub(crate) progress: ProgressHub,
    /// Images that the engine has finished.
    pub(crate) images_made: AtomicU64,
    pub(crate) metrics: ServiceMetrics,
    pub(crate) watched: Arc<Watched>,
    pub(crate) safety: Safety,
    pub(crate) enlarging: Enlarging,
    /// Held while words are looked for, which takes a processor for a while.
    pub(crate) enhancing: Arc<Semaphore>,
    /// Pictures in the store that belong to no job.
    pub(crate) kept_pictures: KeptPictures,
    /// How many callers wait for a job.
    pub(crate) waiters: Mutex<HashMap<JobId, usize>>,
    /// What [`crate::Service::start`] has started.
    pub(crate) tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Inner {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(parts: ServiceParts, config: ServiceConfig) -> Self {
        let ServiceParts {
            catalog,
            hub,
            engine,
            store,
            queue,
            outbox,
            images,
            links,
            fetcher,
            webhooks,
            webhook_bodies,
            tokens,
            memory,
            keys,
            traces,
            signer,
            nodes,
            clock,
        } = parts;
        Self {
            catalog,
            hub,
            engine,
            store,
            queue,
            outbox,
            images,
            links,
            fetcher,
            webhooks,
            webhook_bodies,
            tokens,
            embedding_files: EmbeddingFiles::default(),
            looks: Arc::default(),
            loads: Loads::default(),
            admitted: AdmittedJobs::new(Arc::clone(&memory)),
            memory,
            fetching: JobMarks::default(),
            attempts: JobMarks::default(),
            past_device: JobMarks::default(),
            keys,
            traces,
            signer,
            nodes,
            metrics: ServiceMetrics::default(),
            progress: ProgressHub::new(Arc::clone(&clock)),
            images_made: AtomicU64::new(0),
            watched: Arc::default(),
            started: clock.wall(),
            age_clock: AgeClock::new(Arc::clone(&clock)),
            safety: Safety::new(config.safety.clone()),
            enlarging: Enlarging::default(),
            clock,
            runtime: Handle::current(),
            lifecycle: watch::Sender::new(Lifecycle::Open),
            outage: Mutex::default(),
            admission: Arc::default(),
            decoding: Arc::new(Semaphore::new(config.decoding_images.max(1))),
            decoding_shares: DecodingShares::new(config.decoding_images),
            plan_turns: KeyedSemaphores::default(),
            decoding_beyond: Arc::new(Semaphore::new(1)),
            manifests_beyond: Arc::new(Semaphore::new(1)),
            looking_for_marks: Arc::new(Semaphore::new(1)),
            door: tokio::sync::Mutex::default(),
            suspects: tokio::sync::Mutex::default(),
            enhancing: Arc::new(Semaphore::new(ENHANCED_AT_ONCE)),
            kept_pictures: KeptPictures::default(),
            waiters: Mutex::default(),
            tasks: tokio::sync::Mutex::default(),
            config,
        }
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        *self.lifecycle.borrow()
    }

    /// Before this time everything is older than `age`. When the wall clock is set forward, the time that really passed counts:
    /// nothing grows old because a machine has learnt what year it is. Where it stays so for as long as things are kept, nothing
    /// is left whose time was written down before, and the clock is believed.
    pub(crate) fn before(&self, age: Duration) -> Option<SystemTime> {
        self.aged_now().checked_sub(age)
    }

    /// The time that [`Inner::before`] counts from; never later than the wall clock's.
    pub(crate) fn aged_now(&self) -> SystemTime {
        self.age_clock.now(self.config.deleted_after())
    }

    pub(crate) fn outage(&self) -> Option<&'static str> {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no further attempt begins, because the jobs that wait can wait for the next start.
    pub(crate) fn leaves_jobs(&self) -> bool {
        self.lifecycle().leaves_jobs(self.store.keeps_jobs())
    }

    /// Returns when [`Inner::leaves_jobs`] holds.
    pub(crate) async fn jobs_are_left(&self) {
        let keeps_jobs = self.store.keeps_jobs();
        self.reaches(|lifecycle| lifecycle.leaves_jobs(keeps_jobs)).await;
    }

    /// A signed path to picture number `index` of `job`, in the form that its delivery wants: always the same one, since its
    /// life is counted from the making of the job.
    pub(crate) fn lasting_path(&self, job: &Job, index: u32, life: Duration) -> String {
        let key = image_key(job, index);
        let key = if job.delivery.base64 { key.as_text() } else { key };
        format!("/{}", self.links.sign(&key, job.created_at + life))
    }

    /// Returns when nothing may run any more.
    pub(crate) async fn stopped(&self) {
        self.reaches(|lifecycle| lifecycle == Lifecycle::Stopped).await;
    }

    async fn reaches(&self, end: impl Fn(Lifecycle) -> bool) {
        let mut lifecycle = self.lifecycle.subscribe();
        // The sender lives in `self`, so the channel cannot close here.
        let _ = lifecycle.wait_for(|lifecycle| end(*lifecycle)).await;
    }
}

/// The name under which an image of a job is or will be stored.
pub(crate) fn image_key(job: &Job, index: u32) -> ImageKey {
    let extension = job.delivery.format.extension();
    ImageKey::output(&job.delivery.file_stem, job.id, index as usize, extension)
}
