//! Services that are killed or stopped and started again on the same records and pictures.

use std::path::Path;

use pentimento_jobs::{JobLimits, JobStore as _, SqliteJobs};
use pentimento_storage::{ImageStore, StorageConfig};
use pentimento_types::{ErrorKind, HasKind as _, JobState, SystemClock};
use tempfile::TempDir;

use super::*;
use crate::{ServiceParts, finished_images};

const NAME: &str = "jobs.sqlite";

/// A service whose jobs are in a folder.
struct Server {
    service: Service,
    jobs: SqliteJobs,
    images: ImageStore,
    /// Its device, and a service without jobs.
    _test: TestService,
}

impl Server {
    fn start(folder: &Path, images: &ImageStore, executor: FakeExecutor) -> Self {
        Self::start_with(folder, images, executor, TestConfig::default())
    }

    fn start_with(folder: &Path, images: &ImageStore, executor: FakeExecutor, config: TestConfig) -> Self {
        let clock = Arc::clone(&config.clock);
        let of_device = TestConfig {
            clock,
            ..TestConfig::default()
        };
        let test = TestService::start_with(executor, of_device);
        let jobs = open(folder);
        let parts = ServiceParts {
            store: Arc::new(jobs.clone()),
            queue: jobs.queue(),
            outbox: Arc::new(jobs.clone()),
            images: images.clone(),
            ..test.parts.clone()
        };
        Self {
            service: Service::start(parts, config.service),
            jobs,
            images: images.clone(),
            _test: test,
        }
    }

    async fn ended(&self, id: JobId) -> Job {
        in_time(self.service.wait(id)).await.unwrap()
    }

    async fn pictures(&self, job: &Job) -> Vec<Bytes> {
        let mut files = Vec::new();
        for image in finished_images(job).unwrap() {
            files.push(self.images.get(&image.key).await.unwrap());
        }
        files
    }
}

fn open(folder: &Path) -> SqliteJobs {
    let limits = JobLimits::in_number(64, 1000);
    let opened = SqliteJobs::open(&folder.join(NAME), Arc::new(SystemClock), limits);
    opened.unwrap().0
}

fn memory() -> ImageStore {
    ImageStore::open(&StorageConfig::Memory).unwrap()
}

/// The records as a kill at this moment leaves them.
fn killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for ending in ["", "-wal"] {
        let name = format!("{NAME}{ending}");
        fs_err::copy(folder.join(&name), copy.path().join(&name)).unwrap();
    }
    copy
}

fn two_pictures(prompt: &str) -> Request {
    let mut request = sample_request(prompt);
    request.recipe.image_count = 2;
    request
}

#[tokio::test]
async fn a_job_that_was_running_when_the_process_was_killed_is_made_again_with_the_same_bytes() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (mut held, executor) = Held::new();
    let before = Server::start(folder.path(), &images, executor);
    let id = submit(&before.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    held.step();
    held.arrives().await;
    let left = killed(folder.path());
    let after = Server::start(
        left.path(),
        &memory_with_inputs(&images, &[id]).await,
        FakeExecutor::new(),
    );
    let job = after.ended(id).await;
    assert_eq!((job.state, job.attempt, job.crashes), (JobState::Succeeded, 2, 1));
    drop(held);
    let alone = before.ended(id).await;
    assert_eq!(after.pictures(&job).await, before.pictures(&alone).await);
}

/// A store of its own with the inputs of jobs, so that what the killed process still writes is not seen.
async fn memory_with_inputs(images: &ImageStore, ids: &[JobId]) -> ImageStore {
    let other = memory();
    for id in ids {
        let key = pentimento_types::ImageKey::input(*id, pentimento_types::InputRole::Init);
        let input = images.get(&key).await.unwrap();
        other.put(&key, input).await.unwrap();
    }
    other
}

/// A server that was killed while jobs ran, which are held in its engine.
struct Killed {
    held: Held,
    /// Its records.
    left: TempDir,
    inputs: ImageStore,
    ids: Vec<JobId>,
    /// As it would go on, and its folder.
    before: (TempDir, Server),
}

impl Killed {
    async fn with_running(jobs: usize) -> Self {
        let (folder, images) = (tempfile::tempdir().unwrap(), memory());
        let (mut held, executor) = Held::new();
        let before = Server::start(folder.path(), &images, executor);
        let mut ids = Vec::new();
        for _ in 0..jobs {
            ids.push(submit(&before.service, sample_request("hold")).await.unwrap());
        }
        held.arrives().await;
        eventually(async || before.service.status().await.jobs.running == jobs).await;
        let left = killed(folder.path());
        Self {
            held,
            left,
            inputs: memory_with_inputs(&images, &ids).await,
            ids,
            before: (folder, before),
        }
    }
}

#[tokio::test]
async fn pictures_that_were_stored_before_the_kill_are_not_made_again() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (mut held, executor) = Held::new();
    let before = Server::start(folder.path(), &images, executor);
    let id = submit(&before.service, two_pictures("hold")).await.unwrap();
    held.arrives().await;
    let left = killed(folder.path());
    drop(held);
    let done = before.ended(id).await;
    // The end was never written; all pictures are there.
    let idle = FakeExecutor::new();
    let recording = idle.recording();
    let after = Server::start(left.path(), &images, idle);
    let job = after.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 2));
    assert_eq!(job.outcome, done.outcome);
    assert!(recording.acts().is_empty(), "nothing is computed");
}

#[tokio::test]
async fn where_one_picture_is_missing_or_cut_all_are_made_again() {
    for cut in [false, true] {
        let (folder, images) = (tempfile::tempdir().unwrap(), memory());
        let (mut held, executor) = Held::new();
        let before = Server::start(folder.path(), &images, executor);
        let id = submit(&before.service, two_pictures("hold")).await.unwrap();
        held.arrives().await;
        let left = killed(folder.path());
        let inputs = memory_with_inputs(&images, &[id]).await;
        drop(held);
        let done = before.ended(id).await;
        let pictures = before.pictures(&done).await;
        let keys: Vec<_> = finished_images(&done)
            .unwrap()
            .iter()
            .map(|image| &image.key)
            .collect();
        inputs.put(keys[0], pictures[0].clone()).await.unwrap();
        if cut {
            let half = pictures[1].slice(..pictures[1].len() / 2);
            inputs.put(keys[1], half).await.unwrap();
        }
        let after = Server::start(left.path(), &inputs, FakeExecutor::new());
        let job = after.ended(id).await;
        assert_eq!(after.pictures(&job).await, pictures);
    }
}

#[tokio::test]
async fn a_job_in_flight_at_two_crashes_is_poison_and_the_next_one_runs() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (mut held, executor) = Held::new();
    let before = Server::start(folder.path(), &images, executor);
    let id = submit(&before.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut left = killed(folder.path());
    let (mut held_again, executor) = Held::new();
    let second = Server::start(left.path(), &images, executor);
    held_again.arrives().await;
    assert!(second.service.time_left(id).is_some(), "it is forecast again");
    left = killed(left.path());
    let third = Server::start(left.path(), &images, FakeExecutor::new());
    let job = third.ended(id).await;
    assert_eq!((job.state, job.attempt, job.crashes), (JobState::Failed, 2, 2));
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Internal);
    assert!(failure.to_string().contains("poison"), "{failure}");
    assert_eq!(
        run(&third.service, sample_request("next")).await.state,
        JobState::Succeeded
    );
    drop((held, held_again, second));
}

#[tokio::test]
async fn jobs_that_were_in_a_crash_run_one_by_one_so_that_the_next_one_tells_who_it_was() {
    let Killed {
        held,
        left,
        inputs,
        ids,
        before: _before,
    } = Killed::with_running(3).await;
    let (mut held_again, executor) = Held::new();
    let after = Server::start(left.path(), &inputs, executor);
    held_again.arrives().await;
    tokio::time::sleep(A_MOMENT).await;
    let jobs = after.service.status().await.jobs;
    assert_eq!((jobs.running, jobs.queued), (1, 2));
    // Those that wait for it are told where they stand, and how long.
    eventually(async || {
        let service = &after.service;
        let waiting = ids.iter().filter(|id| service.queue_position(**id).is_some());
        waiting.count() >= 2 && ids.iter().all(|id| service.time_left(*id).is_some())
    })
    .await;
    assert!(after.service.queue_time() > Duration::ZERO);
    // The next crash is one job's.
    let next = killed(left.path());
    let crashed = open(next.path());
    let mut crashes = Vec::new();
    for id in &ids {
        crashes.push(crashed.get(*id).await.unwrap().unwrap().crashes);
    }
    crashes.sort_unstable();
    assert_eq!(crashes, [1, 1, 2]);
    drop((held, held_again));
    for id in ids {
        assert_eq!(after.ended(id).await.state, JobState::Succeeded);
    }
}

#[tokio::test]
async fn jobs_that_were_in_a_crash_leave_room_to_others_while_they_wait_for_each_other() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (mut held, executor) = Held::new();
    let before = Server::start(folder.path(), &images, executor);
    for _ in 0..3 {
        submit(&before.service, sample_request("hold")).await.unwrap();
    }
    held.arrives().await;
    eventually(async || before.service.status().await.jobs.running == 3).await;
    let left = killed(folder.path());
    let (mut held_again, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 3;
    let after = Server::start_with(left.path(), &images, executor, config);
    held_again.arrives().await;
    let other = submit(&after.service, sample_request("b")).await.unwrap();
    eventually(async || after.service.fetch(other).await.unwrap().state == JobState::Running).await;
    assert_eq!(after.service.status().await.jobs.running, 2);
    drop((held, held_again));
    assert_eq!(after.ended(other).await.state, JobState::Succeeded);
}

/// A server that runs one job at a time, what holds that one, and another that waits behind it.
async fn one_runs_and_one_waits(folder: &Path, images: &ImageStore) -> (Server, Held, [JobId; 2]) {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let server = Server::start_with(folder, images, executor, config);
    let running = submit(&server.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let queued = submit(&server.service, sample_request("b")).await.unwrap();
    (server, held, [running, queued])
}

#[tokio::test]
async fn an_orderly_stop_leaves_jobs_for_the_next_start_and_costs_them_nothing() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (before, held, [running, queued]) = one_runs_and_one_waits(folder.path(), &images).await;
    let waiting = tokio::spawn({
        let service = before.service.clone();
        async move { service.wait_or_cancel(queued).await }
    });
    tokio::task::yield_now().await;
    let closing = tokio::spawn({
        let service = before.service.clone();
        async move { service.shutdown(Duration::ZERO).await }
    });
    let told = in_time(waiting).await.unwrap().unwrap_err();
    assert!(matches!(told, ServiceError::ShuttingDown), "{told:?}");
    drop(held);
    in_time(closing).await.unwrap();
    for (id, attempt) in [(running, 1), (queued, 0)] {
        let job = before.jobs.get(id).await.unwrap().unwrap();
        assert_eq!(
            (job.state, job.attempt, job.crashes, job.faults),
            (JobState::Queued, attempt, 0, 0)
        );
    }
    drop(before);
    let after = Server::start(folder.path(), &images, FakeExecutor::new());
    for id in [running, queued] {
        let job = after.ended(id).await;
        assert_eq!((job.state, job.crashes, job.faults), (JobState::Succeeded, 0, 0));
    }
}

#[tokio::test]
async fn a_stop_with_time_finishes_what_runs_and_leaves_what_waits() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (before, held, [running, queued]) = one_runs_and_one_waits(folder.path(), &images).await;
    let closing = tokio::spawn({
        let service = before.service.clone();
        async move { service.shutdown(LONG).await }
    });
    eventually(async || before.service.status().await.stopping).await;
    drop(held);
    in_time(closing).await.unwrap();
    let state = async |id| before.jobs.get(id).await.unwrap().unwrap().state;
    assert_eq!(state(running).await, JobState::Succeeded);
    assert_eq!(state(queued).await, JobState::Queued);
}

#[tokio::test]
async fn any_number_of_stops_leaves_a_job_its_chances() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let mut id = None;
    for _ in 0..4 {
        let (mut held, executor) = Held::new();
        let server = Server::start(folder.path(), &images, executor);
        if id.is_none() {
            id = Some(submit(&server.service, sample_request("hold")).await.unwrap());
        }
        held.arrives().await;
        let closing = tokio::spawn({
            let service = server.service.clone();
            async move { service.shutdown(Duration::ZERO).await }
        });
        eventually(async || server.jobs.get(id.unwrap()).await.unwrap().unwrap().state == JobState::Queued)
            .await;
        drop(held);
        in_time(closing).await.unwrap();
    }
    let server = Server::start(folder.path(), &images, FakeExecutor::new());
    let job = server.ended(id.unwrap()).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 5));
}

#[tokio::test]
async fn a_job_whose_pictures_were_on_their_way_fails_with_a_reason() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let jobs = open(folder.path());
    let job = Job {
        state: JobState::Fetching,
        deadline: None,
        ..sample_job(JobId::new(), SystemTime::UNIX_EPOCH)
    };
    let id = job.id;
    let place = jobs.reserve(&job.owner).unwrap();
    jobs.insert(job, place).await.unwrap();
    let left = killed(folder.path());
    let after = Server::start(left.path(), &images, FakeExecutor::new());
    let failure = finished_images(&after.ended(id).await).unwrap_err();
    assert!(
        failure.to_string().contains("send the request again"),
        "{failure}"
    );
}

#[tokio::test]
async fn pictures_wait_for_a_full_disk_and_are_stored_when_it_has_room() {
    let (folder, pictures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let images = ImageStore::open(&StorageConfig::Folder(pictures.path().to_owned())).unwrap();
    let mut config = TestConfig::default();
    config.service.save_patience = LONG;
    let executor = FakeExecutor::new();
    let recording = executor.recording();
    let server = Server::start_with(folder.path(), &images, executor, config);
    // Fails for every user, also for root.
    let in_the_way = pictures.path().join("generations");
    fs_err::write(&in_the_way, "").unwrap();
    let id = submit(&server.service, sample_request("x")).await.unwrap();
    eventually(async || {
        recording
            .acts()
            .iter()
            .any(|act| matches!(act, SeenAct::Finish(_)))
    })
    .await;
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(server.service.fetch(id).await.unwrap().state, JobState::Running);
    fs_err::remove_file(in_the_way).unwrap();
    let job = server.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
    assert_eq!(server.pictures(&job).await.len(), 1);
}

#[tokio::test]
async fn a_cancel_ends_the_waiting_for_a_full_disk() {
    let (folder, pictures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let images = ImageStore::open(&StorageConfig::Folder(pictures.path().to_owned())).unwrap();
    let mut config = TestConfig::default();
    config.service.save_patience = Duration::from_secs(3600);
    config.service.running_jobs = 1;
    let server = Server::start_with(folder.path(), &images, FakeExecutor::new(), config);
    let in_the_way = pictures.path().join("generations");
    fs_err::write(&in_the_way, "").unwrap();
    let id = submit(&server.service, sample_request("x")).await.unwrap();
    eventually(async || server.service.status().await.jobs.running == 1).await;
    server.service.cancel(id).await.unwrap();
    fs_err::remove_file(in_the_way).unwrap();
    // There is one slot, and it is free again.
    assert_eq!(
        run(&server.service, sample_request("next")).await.state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn a_job_that_was_in_a_crash_ends_at_its_deadline_though_its_turn_has_not_come() {
    let Killed {
        held,
        left,
        inputs,
        ids,
        before: _before,
    } = Killed::with_running(2).await;
    let clock = ManualClock::new(SystemClock.wall());
    let config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    let allowed = config.service.job_deadline;
    let (mut held_again, executor) = Held::new();
    let after = Server::start_with(left.path(), &inputs, executor, config);
    held_again.arrives().await;
    clock.advance(allowed + LONG);
    // One of them is in the engine, which the test holds; the other waits behind it.
    let ended = async |id| after.service.fetch(id).await.unwrap().state == JobState::Failed;
    eventually(async || ended(ids[0]).await != ended(ids[1]).await).await;
    for id in &ids {
        let job = after.service.fetch(*id).await.unwrap();
        if job.state == JobState::Failed {
            let failure = finished_images(&job).unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::DeadlineExceeded);
        }
    }
    drop((held, held_again));
}

#[tokio::test]
async fn what_was_whole_at_a_crash_is_handed_out_though_its_deadline_is_over() {
    let (folder, images) = (tempfile::tempdir().unwrap(), memory());
    let (mut held, executor) = Held::new();
    let before = Server::start(folder.path(), &images, executor);
    let id = submit(&before.service, two_pictures("hold")).await.unwrap();
    held.arrives().await;
    let left = killed(folder.path());
    drop(held);
    let done = before.ended(id).await;
    let config = TestConfig::default();
    let later = SystemClock.wall() + config.service.job_deadline + LONG;
    let config = TestConfig {
        clock: Arc::new(ManualClock::new(later)),
        ..config
    };
    let after = Server::start_with(left.path(), &images, FakeExecutor::new(), config);
    let job = after.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 2));
    assert_eq!(job.outcome, done.outcome);
}
