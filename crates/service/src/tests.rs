//! The use cases over a fake device: right results, every refusal, and every way in which a job can end.

mod cluster;
mod deadlines;
mod failures;
mod idempotency;
mod life;
mod memory;
mod panics;
mod picture_calls;
mod pictures_sent;
mod places;
mod planning;
mod presets;
mod receiver;
mod recovery;
#[cfg(feature = "c2pa")]
mod signing;
mod submitting;
mod troubled_store;
mod unfetched;
mod watching;
mod webhooks;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pentimento_engine::testing::{FakeExecutor, SeenAct};
use pentimento_engine::{ResolvedJob, ResolvedModels};
use pentimento_jobs::conformance::sample_job;
use pentimento_types::{
    ApiKeyId, Clock as _, Delivery, DialectTag, ImageFormat, ImageSource, Inputs, Job, JobId, JobOrigin,
    ManualClock, Progress, Recipe, RgbImage, Size, Task,
};
use tokio::sync::mpsc;

use crate::image_codec::{ImageMetadata, Marks, MaskReading, encode};
use crate::testing::{TestConfig, TestService};
use crate::{Fit, InputLimits, Node, Nodes, Service, ServiceError, Submission};

const LIMITS: InputLimits = InputLimits {
    max_side: 64,
    max_pixels: u64::MAX,
    max_bytes: 1 << 20,
};
const A_MOMENT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

/// Other machines that nobody hears.
#[derive(Debug)]
struct Unheard;

impl Nodes for Unheard {
    fn all(&self) -> Vec<Node> {
        Vec::new()
    }

    fn are_heard(&self) -> bool {
        false
    }

    fn tell_progress(&self, _: JobId, _: u32, _: Progress) {}
}

fn photo() -> RgbImage {
    let size = Size { width: 13, height: 9 };
    let pixels = (0..13 * 9 * 3).map(|at| (at * 5 % 251) as u8).collect();
    RgbImage::new(size, pixels).unwrap()
}

/// A recipe with the files and the delivery that go with it.
#[derive(Clone)]
struct Request {
    recipe: Recipe,
    inputs: Inputs<ImageSource>,
    delivery: Delivery,
}

fn sample_request(prompt: &str) -> Request {
    let job = sample_job(JobId::from_u128(1), SystemTime::UNIX_EPOCH);
    let mut recipe = job.recipe;
    let metadata = ImageMetadata::new(&recipe, Task::ImageToImage, 0, photo().size());
    let file = encode(&photo(), ImageFormat::Png, (&metadata, Marks::ALL)).unwrap();
    recipe.prompt = prompt.to_owned();
    Request {
        recipe,
        inputs: Inputs::new(ImageSource::Inline(file)),
        delivery: Delivery {
            file_stem: job.delivery.file_stem,
            ..Delivery::default()
        },
    }
}

/// The file of the photo.
fn photo_file() -> Bytes {
    match sample_request("x").inputs.init() {
        Some(ImageSource::Inline(file)) => file.clone(),
        Some(ImageSource::Url(_)) | None => panic!("inline"),
    }
}

fn expected(request: &Request, index: u32) -> RgbImage {
    let job = ResolvedJob {
        recipe: Arc::new(request.recipe.clone()),
        models: ResolvedModels::checkpoint(Arc::clone(&crate::Catalog::embedded_only().entries()[0])),
        images: Inputs::new(photo()),
    };
    FakeExecutor::image_of(&job, index)
}

fn submission(request: Request, limits: InputLimits) -> Submission {
    Submission {
        origin: JobOrigin::default(),
        owner: ApiKeyId::anonymous(),
        dialect: DialectTag::default(),
        recipe: request.recipe,
        enhance_prompt: false,
        inputs: request.inputs,
        mask: MaskReading::default(),
        delivery: request.delivery,
        limits,
        fit: Fit::AsSent,
        number: None,
        idempotency: None,
        stays: false,
    }
}

async fn submit(service: &Service, request: Request) -> Result<JobId, ServiceError> {
    service.submit(submission(request, LIMITS)).await
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future)
        .await
        .expect("it takes too long")
}

/// Submits and waits.
async fn run(service: &Service, request: Request) -> Job {
    let id = submit(service, request).await.unwrap();
    in_time(service.wait(id)).await.unwrap()
}

/// A device that stops before each act of a job whose prompt contains "hold", until it is let go.
struct Held {
    acts: mpsc::UnboundedReceiver<SeenAct>,
    let_go: std::sync::mpsc::Sender<()>,
}

impl Held {
    fn new() -> (Self, FakeExecutor) {
        let (seen, acts) = mpsc::unbounded_channel();
        let (let_go, wait) = std::sync::mpsc::channel::<()>();
        let executor = FakeExecutor::new().with_hook(move |act| {
            let held = match act {
                SeenAct::Prepare { prompt } => prompt.contains("hold"),
                SeenAct::Denoise { images: pictures, .. } => {
                    pictures.iter().any(|picture| picture.prompt.contains("hold"))
                }
                SeenAct::Finish(picture) => picture.prompt.contains("hold"),
            };
            if held {
                let _ = seen.send(act.clone());
                // Once the test has dropped its end, nothing is held any more.
                let _ = wait.recv();
            }
        });
        (Self { acts, let_go }, executor)
    }

    /// Returns when the device stands before the next act.
    async fn arrives(&mut self) -> SeenAct {
        in_time(self.acts.recv()).await.expect("the device is there")
    }

    fn step(&self) {
        self.let_go.send(()).expect("the device is there");
    }
}

fn manual() -> (ManualClock, TestConfig) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    (clock, config)
}

async fn stored_inputs(service: &TestService) -> usize {
    let later = pentimento_types::SystemClock.wall() + Duration::from_secs(3600);
    service.parts.images.inputs_before(later).await.unwrap().len()
}

async fn stored_outputs(service: &TestService) -> usize {
    let later = pentimento_types::SystemClock.wall() + Duration::from_secs(3600);
    service.parts.images.outputs_before(later).await.unwrap().len()
}

/// Waits until a condition holds that nothing announces.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    in_time(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn inline(bytes: &'static [u8]) -> ImageSource {
    ImageSource::Inline(Bytes::from_static(bytes))
}

/// What is said of a request that leaves nothing behind.
async fn refusal(test: &TestService, request: Request) -> ServiceError {
    let refused = submit(&test.service, request).await.unwrap_err();
    let counts = test.parts.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running), (0, 0), "nothing is queued");
    assert_eq!(stored_inputs(test).await, 0, "nothing is stored");
    refused
}
