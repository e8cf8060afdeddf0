//! What the service is told and what it is put together from.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::Catalog;
use pentimento_engine::{EngineHandle, TokenCounter};
use pentimento_hub::Hub;
use pentimento_jobs::{JobQueue, JobStore, Outbox};
use pentimento_outbound::{ImageFetcher, WebhookSender};
use pentimento_storage::{ImageStore, LinkSigner};
use pentimento_types::{Clock, MemoryLedger, ModelId};

use crate::key_ring::KeyRing;
use crate::traces::Traces;
use crate::webhook_bodies::WebhookBodies;

use crate::image_codec::{ManifestSigner, Marks};
use crate::{Nodes, SafetySettings};

/// Settings of the use cases and of the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Life of a link, counted from the end of its job.
    pub link_ttl: Duration,
    /// How long an ended job can be fetched, with its pictures; never less than `link_ttl`, and no less than the links of any
    /// dialect live. Both are deleted ten minutes after it.
    pub keep_jobs: Duration,
    /// Jobs that may be in the engine at once, so that they can share forwards; never more than the engine admits.
    pub running_jobs: usize,
    /// Images that are decoded at once.
    pub decoding_images: usize,
    /// Pixels of an image that is decoded; what that takes in memory grows with them.
    pub max_image_pixels: u64,
    /// Tokens of a prompt; what it takes in memory grows with them.
    pub max_prompt_tokens: usize,
    /// How many attempts may go wrong before a job fails for good, at least 1. Faults that may pass, and attempts that ended
    /// with the process, are counted apart.
    pub max_attempts: u32,
    /// How long a job may wait and run, from its acceptance on, before it is given up.
    pub job_deadline: Duration,
    /// How long finished pictures wait for a disk that cannot be written.
    pub save_patience: Duration,
    /// How long a worker may be silent before its job is given to another.
    pub lease: Duration,
    /// What files say of where their pictures come from.
    pub marks: Marks,
    /// Whether the watermark is written into the pixels of what networks have made.
    pub watermark: bool,
    /// What the operator says about the safety checker.
    pub safety: SafetySettings,
    /// The catalogue's language model that adds words to prompts; None is the list inside the binary.
    pub prompt_enhancer: Option<ModelId>,
    /// Time between two looks for what can be deleted.
    pub sweep_interval: Duration,
    /// Whether this machine runs jobs. One of a cluster may leave that to others.
    pub runs_jobs: bool,
}

/// How long a job and its pictures outlive its links, so that a download that began in time can end.
const MARGIN: Duration = Duration::from_secs(600);

impl ServiceConfig {
    /// A job and its pictures go together, and no link of theirs lives longer.
    pub(crate) fn kept(&self) -> Duration {
        self.keep_jobs.max(self.link_ttl)
    }

    /// How long what a link leads to outlives the link.
    pub(crate) const fn margin() -> Duration {
        MARGIN
    }

    /// How long after its end they are deleted.
    pub(crate) fn deleted_after(&self) -> Duration {
        self.kept() + MARGIN
    }

    /// How long after they were stored the inputs of another machine's job are deleted, of which it has told nothing since: by
    /// then the job is beyond its deadline and as good as forgotten.
    pub(crate) fn lost_after(&self) -> Duration {
        self.job_deadline + self.deleted_after()
    }
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
    /// Webhooks to be sent, kept with the job records.
    pub outbox: Arc<dyn Outbox>,
    /// Pictures.
    pub images: ImageStore,
    /// Signs links.
    pub links: LinkSigner,
    /// Gets input pictures from callers' addresses.
    pub fetcher: ImageFetcher,
    /// Hands webhooks over at callers' addresses.
    pub webhooks: WebhookSender,
    /// What they say.
    pub webhook_bodies: Arc<dyn WebhookBodies>,
    /// Counts the tokens of prompts.
    pub tokens: TokenCounter,
    /// What large things hold in memory.
    pub memory: Arc<MemoryLedger>,
    /// Who may call, and how many jobs of each may be unfinished.
    pub keys: Arc<KeyRing>,
    /// Whether spans go to somebody who collects traces.
    pub traces: Traces,
    /// What signs finished files; None leaves them unsigned.
    pub signer: Option<Arc<ManifestSigner>>,
    /// The other machines that share the jobs; None where there are none.
    pub nodes: Option<Arc<dyn Nodes>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}
