//! What the service is told and what it is put together from.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::Catalog;
use pentimento_engine::{EngineHandle, TokenCounter};
use pentimento_hub::Hub;
use pentimento_jobs::{JobQueue, JobStore};
use pentimento_outbound::ImageFetcher;
use pentimento_storage::{ImageStore, LinkSigner};
use pentimento_types::{Clock, MemoryLedger};

use crate::SafetySettings;

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
    /// Images that are decoded at once.
    pub decoding_images: usize,
    /// Pixels of an image that is decoded; what that takes in memory grows with them.
    pub max_image_pixels: u64,
    /// Tokens of a prompt; what it takes in memory grows with them.
    pub max_prompt_tokens: usize,
    /// How often a job is started before it fails for good, at least 1.
    pub max_attempts: u32,
    /// How long a worker may be silent before its job is given to another.
    pub lease: Duration,
    /// What the operator says about the safety checker.
    pub safety: SafetySettings,
    /// Time between two looks for what can be deleted.
    pub sweep_interval: Duration,
}

/// What the service is put together from.
#[derive(Clone, Debug)]
pub struct ServiceParts {
    /// The models that a request can name.
    pub catalog: Arc<Catalog>,
    /// Where the files of models are, and how they get there.
    pub hub: Hub,
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
    /// Counts the tokens of prompts.
    pub tokens: TokenCounter,
    /// What large things hold in memory.
    pub memory: Arc<MemoryLedger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}
