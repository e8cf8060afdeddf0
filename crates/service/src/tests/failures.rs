//! Engines that fail, panic and hang; workers that fall silent; and neighbours that must not notice.

use pentimento_engine::testing::{Fault, FaultAt, FaultKind};
use pentimento_jobs::{Claim, JobLimits, JobQueue, JobsError, MemoryJobs, QueueEntry};
use pentimento_types::{ErrorKind, HasKind as _, JobState, SystemClock};

use super::*;
use crate::{ServiceParts, finished_images};

fn failing(at: FaultAt, kind: FaultKind) -> FakeExecutor {
    FakeExecutor::new().with_fault(Fault::always("bad", at, kind))
}

#[tokio::test]
async fn a_fault_that_may_pass_is_tried_once_more() {
    let fault = Fault::once("bad", FaultAt::Prepare, FaultKind::Error(ErrorKind::Unavailable));
    let test = TestService::start(FakeExecutor::new().with_fault(fault));
    let request = sample_request("bad luck");
    let job = run(&test.service, request.clone()).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 2));
    let image = &finished_images(&job).unwrap()[0];
    let file = test.parts.images.get(&image.key).await.unwrap();
    let picture = crate::image_codec::decode(&file, LIMITS).unwrap();
    assert_eq!(
        picture,
        expected(&request, 0),
        "the second attempt starts from the same seed"
    );
}

#[tokio::test]
async fn a_machine_that_can_run_nothing_leaves_jobs_to_the_others_of_its_cluster() {
    let test = TestService::start(FakeExecutor::new());
    let jobs = Arc::new(MemoryJobs::new(
        Arc::new(SystemClock),
        JobLimits::in_number(10, 10),
    ));
    let parts = ServiceParts {
        store: Arc::clone(&jobs) as Arc<_>,
        queue: jobs.queue(),
        outbox: jobs,
        nodes: Some(Arc::new(Unheard)),
        ..test.parts
    };
    let service = Service::start(parts.clone(), TestConfig::default().service);
    // Before its worker has looked for a job.
    service.set_outage(Some("the disk is full"));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.not_before = None;
    let (id, entry) = (job.id, QueueEntry::of(&job));
    let place = parts.store.reserve(&job.owner).unwrap();
    parts.store.insert(job, place).await.unwrap();
    parts.queue.push(entry).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let other = tokio::time::timeout(A_MOMENT, parts.queue.claim(LONG, &[])).await;
    let claim = other.expect("nobody is before the other machine").unwrap();
    assert_eq!(claim.job(), id);
    parts.queue.release(claim, Duration::ZERO).await.unwrap();
    service.set_outage(None);
    let job = in_time(service.wait(id)).await.unwrap();
    assert_ne!(job.attempt, 0, "it looks again");
}

#[tokio::test]
async fn a_fault_that_stays_fails_the_job_after_the_last_attempt() {
    for at in [FaultAt::Prepare, FaultAt::Evaluation(1), FaultAt::Finish] {
        let test = TestService::start(failing(at, FaultKind::Error(ErrorKind::Internal)));
        let job = run(&test.service, sample_request("bad")).await;
        assert_eq!((job.state, job.attempt), (JobState::Failed, 2), "{at:?}");
        assert_eq!(stored_inputs(&test).await, 0);
    }
}

#[tokio::test]
async fn a_fault_that_cannot_pass_fails_the_job_at_once() {
    let test = TestService::start(failing(
        FaultAt::Prepare,
        FaultKind::Error(ErrorKind::InvalidInput),
    ));
    let job = run(&test.service, sample_request("bad")).await;
    assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::InvalidInput);
    assert_eq!(failure.to_string(), "could not prepare the picture");
}

#[tokio::test]
async fn a_panic_ends_its_own_job_only_and_is_never_shown() {
    let test = TestService::start(failing(FaultAt::Evaluation(0), FaultKind::Panic));
    let mut ids = Vec::new();
    for prompt in ["good one", "bad", "good two"] {
        ids.push(submit(&test.service, sample_request(prompt)).await.unwrap());
    }
    let mut states = Vec::new();
    for id in &ids {
        states.push(in_time(test.service.wait(*id)).await.unwrap().state);
    }
    assert_eq!(
        states,
        [JobState::Succeeded, JobState::Failed, JobState::Succeeded]
    );
    let job = test.service.fetch(ids[1]).await.unwrap();
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Internal);
    assert!(
        !failure.to_string().contains("a panic that a test asked for"),
        "{failure}"
    );
    assert_eq!(
        run(&test.service, sample_request("next")).await.state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn too_little_memory_is_said_and_not_tried_again() {
    let test = TestService::start(failing(FaultAt::Prepare, FaultKind::OutOfMemory));
    let job = run(&test.service, sample_request("bad")).await;
    assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::OutOfDeviceMemory);
    assert!(failure.to_string().contains("too little memory"), "{failure}");
}

#[tokio::test]
async fn a_lost_device_fails_jobs_and_readiness_but_not_the_service() {
    let test = TestService::start(failing(FaultAt::Evaluation(0), FaultKind::DeviceLost));
    let job = run(&test.service, sample_request("bad")).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(finished_images(&job).unwrap_err().kind(), ErrorKind::Unavailable);
    eventually(async || !test.service.status().await.ready).await;
    let job = run(&test.service, sample_request("good")).await;
    assert_eq!(finished_images(&job).unwrap_err().kind(), ErrorKind::Unavailable);
    in_time(test.service.shutdown(LONG)).await;
}

#[tokio::test]
async fn pictures_that_cannot_be_stored_fail_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let test = TestService::start(FakeExecutor::new());
    in_time(test.service.shutdown(LONG)).await;
    let other = TestService::start(FakeExecutor::new());
    let mut parts = other.parts.clone();
    let config = pentimento_storage::StorageConfig::Folder(folder.path().to_owned());
    parts.images = pentimento_storage::ImageStore::open(&config).unwrap();
    parts.queue = Arc::clone(&test.parts.queue);
    parts.store = Arc::clone(&test.parts.store);
    let service = Service::start(parts, TestConfig::default().service);
    fs_err::write(folder.path().join("generations"), "in the way").unwrap();
    let job = run(&service, sample_request("x")).await;
    assert_eq!(
        (job.state, job.attempt),
        (JobState::Failed, 1),
        "the disk was waited for already"
    );
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.to_string(), "the server could not store the picture");
    assert_eq!(failure.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_lost_input_fails_the_job_without_naming_a_path() {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let id = submit(&test.service, sample_request("b")).await.unwrap();
    test.parts
        .images
        .delete(&pentimento_types::ImageKey::input(
            id,
            pentimento_types::InputRole::Init,
        ))
        .await
        .unwrap();
    assert!(
        test.service.inner.admitted.give_up_one(),
        "it is read from the store again"
    );
    drop(held);
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.to_string(), "the server could not read the input picture");
}

#[tokio::test]
async fn a_waiting_job_that_has_given_up_its_images_gets_them_back_from_the_store() {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let request = sample_request("b");
    let id = submit(&test.service, request.clone()).await.unwrap();
    assert!(test.service.inner.admitted.give_up_one());
    assert!(
        !test.service.inner.admitted.give_up_one(),
        "the first has taken its own"
    );
    drop(held);
    let job = in_time(test.service.wait(id)).await.unwrap();
    let image = &finished_images(&job).unwrap()[0];
    let file = test.parts.images.get(&image.key).await.unwrap();
    assert_eq!(
        crate::image_codec::decode(&file, LIMITS).unwrap(),
        expected(&request, 0)
    );
}

/// Lets manual time pass until the condition holds.
async fn with_time(clock: &ManualClock, step: Duration, mut holds: impl AsyncFnMut() -> bool) {
    eventually(async || {
        clock.advance(step);
        tokio::time::sleep(Duration::from_millis(5)).await;
        holds().await
    })
    .await;
}

#[tokio::test]
async fn heartbeats_keep_a_slow_job() {
    let (clock, config) = manual();
    let lease = config.service.lease;
    let (mut held, executor) = Held::new();
    let test = TestService::start_with(executor, config);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut steps = 0;
    with_time(&clock, lease / 4, async || {
        steps += 1;
        // Time for the heartbeat to be sent before the clock moves again.
        tokio::time::sleep(Duration::from_millis(10)).await;
        steps > 20
    })
    .await;
    drop(held);
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
}

#[tokio::test]
async fn a_process_that_was_stopped_and_continued_goes_on_with_its_attempt() {
    let (clock, config) = manual();
    let lease = config.service.lease;
    let (mut held, executor) = Held::new();
    let recording = executor.recording();
    let test = TestService::start_with(executor, config);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    for _ in 0..3 {
        // SIGSTOP: every clock went on, and no heartbeat was sent.
        clock.advance(2 * lease);
        tokio::time::sleep(A_MOMENT).await;
    }
    drop(held);
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!((job.state, job.attempt, job.crashes), (JobState::Succeeded, 1, 0));
    assert_eq!(stored_outputs(&test).await, 1);
    let prepared = |act: &&SeenAct| matches!(act, SeenAct::Prepare { .. });
    let acts = recording.acts();
    assert_eq!(acts.iter().filter(prepared).count(), 1, "it is computed once");
}

/// A queue that takes heartbeats and does not hear them: to it every worker is silent.
#[derive(Debug)]
struct Deaf(Arc<dyn JobQueue>);

#[async_trait::async_trait]
impl JobQueue for Deaf {
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        self.0.push(entry).await
    }

    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        self.0.claim(lease, except).await
    }

    async fn heartbeat(&self, _: &Claim, _: Duration) -> Result<(), JobsError> {
        Ok(())
    }

    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError> {
        self.0.release(claim, delay).await
    }

    async fn complete(&self, claim: Claim) -> Result<(), JobsError> {
        self.0.complete(claim).await
    }

    async fn forget(&self, id: JobId) -> Result<(), JobsError> {
        self.0.forget(id).await
    }
}

/// A service whose workers all seem to be silent, and its clock.
fn deaf(executor: FakeExecutor) -> (ManualClock, Service, TestService) {
    let (clock, config) = manual();
    let test = TestService::start_with(executor, config.clone());
    let jobs = MemoryJobs::new(Arc::new(clock.clone()), JobLimits::in_number(10, 10));
    let parts = ServiceParts {
        store: Arc::new(jobs.clone()),
        outbox: Arc::new(jobs.clone()),
        queue: Arc::new(Deaf(jobs.queue())),
        ..test.parts.clone()
    };
    (clock, Service::start(parts, config.service), test)
}

#[tokio::test]
async fn a_job_whose_worker_fell_silent_is_run_again_and_ends_once() {
    let (mut held, executor) = Held::new();
    let (clock, service, test) = deaf(executor);
    let request = sample_request("hold");
    let id = submit(&service, request.clone()).await.unwrap();
    held.arrives().await;
    with_time(&clock, Duration::from_secs(10), async || {
        service.fetch(id).await.unwrap().attempt == 2
    })
    .await;
    drop(held);
    let job = in_time(service.wait(id)).await.unwrap();
    assert_eq!((job.state, job.attempt, job.crashes), (JobState::Succeeded, 2, 1));
    let image = &finished_images(&job).unwrap()[0];
    let file = test.parts.images.get(&image.key).await.unwrap();
    assert_eq!(
        crate::image_codec::decode(&file, LIMITS).unwrap(),
        expected(&request, 0)
    );
    assert_eq!(stored_outputs(&test).await, 1);
}

#[tokio::test]
async fn a_job_that_never_ends_is_given_up_as_poison() {
    let (mut held, executor) = Held::new();
    let (clock, service, _test) = deaf(executor);
    let id = submit(&service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    with_time(&clock, Duration::from_secs(10), async || {
        service.fetch(id).await.unwrap().state.is_final()
    })
    .await;
    let job = service.fetch(id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Failed, 2));
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Internal);
    assert!(failure.to_string().contains("poison"), "{failure}");
    drop(held);
    assert_eq!(
        run(&service, sample_request("next")).await.state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn waiting_jobs_run_together() {
    let (mut held, executor) = Held::new();
    let recording = executor.recording();
    let test = TestService::start(executor);
    let first = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut ids = vec![first];
    for index in 0..8 {
        let mut request = sample_request(&format!("number {index}"));
        // Long enough for all of them to be prepared while the first still runs.
        (request.recipe.steps, request.recipe.strength) = (40, 1.0);
        ids.push(submit(&test.service, request).await.unwrap());
    }
    eventually(async || test.service.status().await.engine.jobs == 9).await;
    drop(held);
    for id in ids {
        assert_eq!(
            in_time(test.service.wait(id)).await.unwrap().state,
            JobState::Succeeded
        );
    }
    let largest = recording.forwards().iter().map(Vec::len).max();
    assert!(
        largest >= Some(8),
        "jobs in the engine share forwards, found {largest:?}"
    );
}
