//! What all use cases and workers share: the parts, the settings, and how far the service is from its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pentimento_catalog::Catalog;
use pentimento_engine::{EmbeddingFiles, EngineHandle, TokenCounter};
use pentimento_hub::Hub;
use pentimento_jobs::{JobQueue, JobStore};
use pentimento_outbound::ImageFetcher;
use pentimento_storage::{ImageStore, LinkSigner};
use pentimento_types::{Clock, ImageKey, Job, JobId, KeyedSemaphores};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::admitted::AdmittedJobs;
use crate::config::{ServiceConfig, ServiceParts};
use crate::decoding_shares::DecodingShares;
use crate::fetching::Fetching;
use crate::loads::Loads;
use crate::looks::Looks;
use crate::picture_calls::Enlarging;
use crate::progress::ProgressHub;
use crate::safety::Safety;

/// How many plans of one model are made at once: so many threads can a disk without an answer hold, however many callers
/// come and go.
pub(crate) const PLANS_AT_ONCE: usize = 4;

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

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) hub: Hub,
    pub(crate) engine: EngineHandle,
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) queue: Arc<dyn JobQueue>,
    pub(crate) images: ImageStore,
    pub(crate) links: LinkSigner,
    pub(crate) fetcher: ImageFetcher,
    pub(crate) tokens: TokenCounter,
    pub(crate) embedding_files: EmbeddingFiles,
    pub(crate) looks: Arc<Looks>,
    pub(crate) loads: Loads,
    pub(crate) admitted: AdmittedJobs,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: ServiceConfig,
    pub(crate) runtime: Handle,
    pub(crate) lifecycle: watch::Sender<Lifecycle>,
    /// Held for reading while a job is being stored, so that a shutdown sees every job that was accepted.
    pub(crate) admission: RwLock<()>,
    pub(crate) decoding: Arc<Semaphore>,
    pub(crate) decoding_shares: DecodingShares,
    /// Who may plan on a model, by its name: each plan reads the model's disk, which may not answer.
    pub(crate) plan_turns: KeyedSemaphores<String>,
    /// Held while an image is decoded for which the account has no room.
    pub(crate) decoding_beyond: Arc<Semaphore>,
    /// Held by the attempt whose turn it is to get into the engine; the others stand in line for it.
    pub(crate) door: tokio::sync::Mutex<()>,
    pub(crate) fetching: Fetching,
    pub(crate) progress: ProgressHub,
    pub(crate) safety: Safety,
    pub(crate) enlarging: Enlarging,
    /// How many callers wait for a job.
    pub(crate) waiters: Mutex<HashMap<JobId, usize>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
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
            images,
            links,
            fetcher,
            tokens,
            memory,
            clock,
        } = parts;
        Self {
            catalog,
            hub,
            engine,
            store,
            queue,
            images,
            links,
            fetcher,
            tokens,
            embedding_files: EmbeddingFiles::default(),
            looks: Arc::default(),
            loads: Loads::default(),
            admitted: AdmittedJobs::new(memory),
            fetching: Fetching::default(),
            progress: ProgressHub::new(Arc::clone(&clock)),
            safety: Safety::new(config.safety),
            enlarging: Enlarging::default(),
            clock,
            runtime: Handle::current(),
            lifecycle: watch::Sender::new(Lifecycle::Open),
            admission: RwLock::default(),
            decoding: Arc::new(Semaphore::new(config.decoding_images.max(1))),
            decoding_shares: DecodingShares::new(config.decoding_images),
            plan_turns: KeyedSemaphores::default(),
            decoding_beyond: Arc::new(Semaphore::new(1)),
            door: tokio::sync::Mutex::default(),
            waiters: Mutex::default(),
            tasks: Mutex::default(),
            config,
        }
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        *self.lifecycle.borrow()
    }

    pub(crate) fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns when nothing may run any more.
    pub(crate) async fn stopped(&self) {
        let mut lifecycle = self.lifecycle.subscribe();
        // The sender lives in `self`, so the channel cannot close here.
        let _ = lifecycle
            .wait_for(|lifecycle| *lifecycle == Lifecycle::Stopped)
            .await;
    }
}

/// The name under which an image of a job is or will be stored.
pub(crate) fn image_key(job: &Job, index: u32) -> ImageKey {
    let extension = job.delivery.format.extension();
    ImageKey::output(&job.delivery.file_stem, job.id, index as usize, extension)
}
