//! What the checks run on: an empty implementation, and jobs to put into it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pentimento_types::{
    ApiKeyId, Clock, Delivery, DialectTag, Findings, ImageFormat, ImageKey, InputRole, Inputs, Job, JobId,
    JobNote, ManualClock, ModelId, Priority, Recipe, SafetyAction, SchedulerChoice, Size, StoredImage,
};

use crate::{Inserted, JobQueue, JobStore, JobsError, ModelsBeside, Outbox, QueueEntry, Refusal};

/// Lets so much of an implementation's time pass: moves its clock, or sleeps.
pub type LetPass = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An implementation under test, empty.
#[derive(Clone)]
pub struct Fixture {
    /// Records.
    pub store: Arc<dyn JobStore>,
    /// Queue.
    pub queue: Arc<dyn JobQueue>,
    /// The webhooks of the records.
    pub outbox: Arc<dyn Outbox>,
    /// The time that they go by.
    pub clock: Arc<dyn Clock>,
    /// How time passes for all of them.
    pub let_pass: LetPass,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Fixture {
    /// Of one that goes by a clock which is moved.
    #[must_use]
    pub fn new(
        jobs: impl JobStore + Outbox + Clone + 'static,
        queue: Arc<dyn JobQueue>,
        clock: &ManualClock,
    ) -> Self {
        let clock = clock.clone();
        Self {
            store: Arc::new(jobs.clone()),
            queue,
            outbox: Arc::new(jobs),
            clock: Arc::new(clock.clone()),
            let_pass: Arc::new(move |time| {
                clock.advance(time);
                Box::pin(std::future::ready(()))
            }),
        }
    }

    pub(super) async fn pass(&self, time: Duration) {
        (self.let_pass)(time).await;
    }
}

/// Short enough to be waited for with a real clock, long enough not to run out by itself.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// Long enough for a woken task to run, short enough for a suite; only the absence of an event is waited for.
pub(super) const A_MOMENT: Duration = Duration::from_millis(30);

/// A job as a dialect would make it, queued.
#[must_use]
pub fn sample_job(id: JobId, created_at: SystemTime) -> Job {
    let recipe = Recipe {
        model: ModelId::new("demo"),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: "a red house".to_owned(),
        negative_prompt: None,
        image_count: 1,
        steps: 4,
        strength: 0.6,
        guidance_scale: 7.5,
        seed: 7,
        clip_skip: 1,
        token_merging: true,
        scheduler: SchedulerChoice::default(),
        framing: None,
        soft_edge: 0,
        differential_diffusion: false,
        keeps_everything: false,
        ip_adapter: None,
    };
    let inputs = Inputs::new(ImageKey::input(id, InputRole::Init));
    Job {
        owner: ApiKeyId::anonymous(),
        dialect: DialectTag {
            name: "novita".to_owned(),
            note: Some("{\"number\": 7}".to_owned()),
            number: None,
        },
        delivery: Delivery {
            file_stem: "lcm_img2img".to_owned(),
            link_life: Some(Duration::from_secs(3600)),
            ..Delivery::default()
        },
        notes: vec![JobNote::MaskIsAlpha],
        priority: Priority::High,
        deadline: Some(created_at + Duration::from_secs(600)),
        not_before: Some(created_at + Duration::from_secs(1)),
        ..Job::queued(id, created_at, recipe, inputs)
    }
}

pub(super) fn sample_image(id: JobId) -> StoredImage {
    StoredImage {
        key: ImageKey::output("lcm_img2img", id, 0, "png"),
        format: ImageFormat::Png,
        size: Size { width: 8, height: 8 },
        seed: 7,
        findings: Findings {
            nsfw: Some(true),
            score: Some(812),
            action: Some(SafetyAction::Blur),
        },
    }
}

pub(super) async fn inserted(store: &dyn JobStore) -> JobId {
    let id = JobId::new();
    insert(store, sample_job(id, SystemTime::UNIX_EPOCH)).await;
    id
}

pub(super) async fn insert(store: &dyn JobStore, job: Job) {
    let place = store.reserve(&job.owner).expect("a free place");
    let inserted = store.insert(job, place).await.expect("a new job is taken");
    assert_eq!(inserted, Inserted::New);
}

/// An entry for one unit of work.
pub(super) fn entry(id: JobId) -> QueueEntry {
    QueueEntry {
        id,
        owner: ApiKeyId::anonymous(),
        model: ModelId::new("demo"),
        beside: ModelsBeside::default(),
        stays: false,
        priority: Priority::Normal,
        work: 1,
    }
}

pub(super) fn expect_refusal<T: std::fmt::Debug>(result: Result<T, JobsError>, reason: Refusal) {
    assert!(
        matches!(&result, Err(JobsError::Refused(refused)) if refused.reason == reason),
        "expected a refusal ({reason:?}), found {result:?}"
    );
}

pub(super) fn expect_lost<T: std::fmt::Debug>(result: Result<T, JobsError>) {
    assert!(
        matches!(result, Err(JobsError::ClaimLost { .. })),
        "expected a lost claim, found {result:?}"
    );
}
