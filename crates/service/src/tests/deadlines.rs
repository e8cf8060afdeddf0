//! Deadlines: fault 78, and what becomes of jobs that wait, run, or are found late by a later process.

use pentimento_jobs::{JobLimits, MemoryJobs, OutboxFilter, QueueEntry, Transition};
use pentimento_storage::{ImageStore, StorageConfig};
use pentimento_types::{ErrorKind, HasKind as _, JobState};

use super::*;
use crate::{ServiceParts, finished_images};

const ALLOWED: Duration = Duration::from_secs(600);

fn allowing() -> (ManualClock, TestConfig) {
    let (clock, mut config) = manual();
    config.service.job_deadline = ALLOWED;
    config.service.running_jobs = 1;
    (clock, config)
}

fn counted(test: &TestService) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    test.service.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test]
async fn a_job_that_waits_beyond_its_deadline_fails_and_is_never_begun_and_one_that_runs_is_ended() {
    let (Held { mut acts, let_go }, executor) = Held::new();
    let (clock, config) = allowing();
    let test = TestService::start_with(executor, config);
    let running = submit(&test.service, sample_request("hold a")).await.unwrap();
    in_time(acts.recv()).await.expect("the device is there");
    let mut told = sample_request("hold b");
    told.delivery.webhook = Some("http://127.0.0.1:8099/hook".to_owned());
    let waiting = submit(&test.service, told).await.unwrap();

    clock.advance(ALLOWED - Duration::from_secs(1));
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(test.service.fetch(waiting).await.unwrap().state, JobState::Queued);

    clock.advance(Duration::from_secs(1));
    let job = in_time(test.service.wait(waiting)).await.unwrap();
    let error = finished_images(&job).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.to_string().contains("600 s after"), "{error}");
    assert_eq!((job.state, job.attempt), (JobState::Failed, 0));
    let filter = OutboxFilter {
        job: Some(waiting),
        ..OutboxFilter::default()
    };
    assert_eq!(test.parts.outbox.webhooks(&filter).await.unwrap().len(), 1);

    drop(let_go);
    let job = in_time(test.service.wait(running)).await.unwrap();
    let error = finished_images(&job).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.to_string().contains("600 s after"), "{error}");
    assert_eq!((job.attempt, job.faults), (1, 0), "it is not tried again");
    while let Ok(act) = acts.try_recv() {
        assert!(!format!("{act:?}").contains("hold b"), "{act:?}");
    }
    let counted = counted(&test);
    let line = "jobs_ended_total{outcome=\"failed\",kind=\"deadline_exceeded\",dialect=\"\"} 2";
    assert!(counted.lines().any(|found| found == line), "{counted}");
    eventually(async || stored_inputs(&test).await == 0).await;
}

#[tokio::test]
async fn what_is_found_late_by_a_worker_is_not_begun_either() {
    let (Held { mut acts, .. }, executor) = Held::new();
    let (clock, config) = allowing();
    let test = TestService::start_with(executor, config);
    // As a start finds it that comes after the deadline.
    let mut job = sample_job(JobId::new(), clock.wall() - 2 * ALLOWED);
    job.recipe.prompt = "hold".to_owned();
    job.deadline = Some(clock.wall() - ALLOWED);
    let (id, entry) = (job.id, QueueEntry::of(&job));
    let place = test.parts.store.reserve(&job.owner).unwrap();
    test.parts.store.insert(job, place).await.unwrap();
    test.parts.queue.push(entry).await.unwrap();
    let job = in_time(test.service.wait(id)).await.unwrap();
    let error = finished_images(&job).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(job.attempt, 0);
    assert!(acts.try_recv().is_err());
}

#[tokio::test]
async fn a_job_whose_attempt_is_gone_ends_at_its_deadline_though_all_slots_are_taken() {
    let (Held { mut acts, let_go }, executor) = Held::new();
    let (clock, config) = allowing();
    let test = TestService::start_with(executor, config);
    submit(&test.service, sample_request("hold")).await.unwrap();
    in_time(acts.recv()).await.expect("the device is there");
    // As an attempt leaves it whose end could not be written.
    let mut job = sample_job(JobId::new(), clock.wall());
    job.deadline = Some(clock.wall() + ALLOWED / 2);
    let (id, entry) = (job.id, QueueEntry::of(&job));
    let place = test.parts.store.reserve(&job.owner).unwrap();
    test.parts.store.insert(job, place).await.unwrap();
    let start = Transition::Start { attempt: 0 };
    test.parts.store.transition(id, start).await.unwrap();
    test.parts.queue.push(entry).await.unwrap();
    // Jobs are looked at when the next deadline of those that were found, or accepted since, can have come.
    clock.advance(ALLOWED);
    let job = in_time(test.service.wait(id)).await.unwrap();
    let error = finished_images(&job).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(job.attempt, 1, "it is not begun again");
    drop(let_go);
}

#[tokio::test]
async fn a_clock_that_is_set_forward_gives_nobody_up() {
    let (mut held, executor) = Held::new();
    let clock = ClockAhead::default();
    let config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    let test = TestService::start_with(executor, config);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    clock.set_forward(Duration::from_secs(400 * 86_400));
    drop(held);
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(
        run(&test.service, sample_request("b")).await.state,
        JobState::Succeeded
    );
}

/// The system's clock, whose wall is set.
#[derive(Clone, Debug, Default)]
struct ClockAhead(Arc<std::sync::Mutex<Duration>>);

impl ClockAhead {
    fn set_forward(&self, by: Duration) {
        *self.0.lock().unwrap() = by;
    }
}

#[async_trait::async_trait]
impl pentimento_types::Clock for ClockAhead {
    fn now(&self) -> std::time::Instant {
        pentimento_types::SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        pentimento_types::SystemClock.wall() + *self.0.lock().unwrap()
    }

    async fn sleep_until(&self, deadline: std::time::Instant) {
        pentimento_types::SystemClock.sleep_until(deadline).await;
    }
}

#[tokio::test]
async fn a_late_job_waits_for_a_store_that_does_not_say_whether_its_pictures_are_there() {
    const DAY: Duration = Duration::from_secs(86_400);
    for (patience, state) in [(DAY, JobState::Succeeded), (ALLOWED, JobState::Failed)] {
        let folder = tempfile::tempdir().unwrap();
        let (clock, mut config) = allowing();
        config.service.save_patience = patience;
        let settings = config.service.clone();
        let (mut held, executor) = Held::new();
        let other = TestService::start_with(executor, config);
        let jobs = Arc::new(MemoryJobs::new(
            Arc::new(clock.clone()),
            JobLimits::in_number(10, 10),
        ));
        let images = StorageConfig::Folder(folder.path().to_owned());
        let parts = ServiceParts {
            store: Arc::clone(&jobs) as Arc<_>,
            queue: jobs.queue(),
            outbox: jobs,
            images: ImageStore::open(&images).unwrap(),
            ..other.parts.clone()
        };
        let service = Service::start(parts.clone(), settings);
        // The one worker is busy, so that what was left by an earlier life was looked at.
        submit(&service, sample_request("hold")).await.unwrap();
        held.arrives().await;
        // As an attempt leaves it whose end could not be written; no worker hears of it.
        let mut job = sample_job(JobId::new(), clock.wall());
        job.deadline = Some(clock.wall() + ALLOWED);
        let id = job.id;
        let place = parts.store.reserve(&job.owner).unwrap();
        parts.store.insert(job, place).await.unwrap();
        let start = Transition::Start { attempt: 0 };
        let job = parts.store.transition(id, start).await.unwrap();
        for index in 0..job.recipe.image_count {
            let key = crate::inner::image_key(&job, index);
            parts.images.put(&key, photo_file()).await.unwrap();
        }
        // Files are in the way of the folder.
        let (there, aside) = (folder.path().join("generations"), folder.path().join("aside"));
        fs_err::rename(&there, &aside).unwrap();
        fs_err::write(&there, "in the way").unwrap();
        clock.advance(ALLOWED);
        tokio::time::sleep(A_MOMENT).await;
        let found = service.fetch(id).await.unwrap();
        assert_eq!(found.state, JobState::Running, "{found:?}");
        if state == JobState::Succeeded {
            fs_err::remove_file(&there).unwrap();
            fs_err::rename(&aside, &there).unwrap();
        }
        eventually(async || {
            clock.advance(Duration::from_secs(60));
            service.fetch(id).await.unwrap().state == state
        })
        .await;
        let job = service.fetch(id).await.unwrap();
        // Handing out what is there counts as an attempt, which computes nothing.
        let attempts = if state == JobState::Succeeded { 2 } else { 1 };
        assert_eq!(job.attempt, attempts, "{state:?}");
        match finished_images(&job) {
            Ok(images) => assert_eq!(images.len(), job.recipe.image_count as usize),
            Err(error) => assert_eq!(error.kind(), ErrorKind::DeadlineExceeded),
        }
    }
}
