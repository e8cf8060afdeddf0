//! Waiting, cancelling, links over time, sweeping, and the end of the service.

use std::sync::atomic::Ordering;

use pentimento_types::{ErrorKind, HasKind as _, JobState};

use super::troubled_store::TroubledStore;
use super::*;
use crate::{finished_images, maintenance};

#[tokio::test]
async fn two_waiters_get_the_same_job() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let wait = |service: Service| tokio::spawn(async move { service.wait(id).await.unwrap() });
    let (one, two) = (wait(test.service.clone()), wait(test.service.clone()));
    tokio::time::sleep(A_MOMENT).await;
    assert!(!one.is_finished() && !two.is_finished());
    drop(held);
    let (one, two) = (in_time(one).await.unwrap(), in_time(two).await.unwrap());
    assert_eq!(one, two);
    assert_eq!(one.state, JobState::Succeeded);
}

#[tokio::test]
async fn progress_is_seen_while_a_job_runs() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let mut request = sample_request("hold");
    request.recipe.strength = 1.0;
    let id = submit(&test.service, request).await.unwrap();
    // Before prepare and before each of the first two evaluations.
    for _ in 0..2 {
        held.arrives().await;
        held.step();
    }
    held.arrives().await;
    eventually(async || {
        test.service
            .progress(id)
            .is_some_and(|progress| progress.done == 1)
    })
    .await;
    let job = test.service.fetch(id).await.unwrap();
    assert_eq!(job.state, JobState::Running);
    assert_eq!(test.service.progress(id).unwrap().total, 4);
    let status = test.service.status().await;
    assert!(status.ready && status.engine.healthy);
    assert_eq!((status.jobs.running, status.engine.jobs), (1, 1));
    drop(held);
    in_time(test.service.wait(id)).await.unwrap();
    assert_eq!(test.service.progress(id), None);
}

#[tokio::test]
async fn the_time_of_a_job_begins_when_the_device_begins_with_it() {
    let (mut held, executor) = Held::new();
    let (clock, config) = manual();
    let test = TestService::start_with(executor, config);
    let first = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    // In a worker's hands and in the engine, and the device has not begun with it.
    let second = submit(&test.service, sample_request("b")).await.unwrap();
    eventually(async || test.service.status().await.engine.jobs == 2).await;
    let claimed = test.service.fetch(second).await.unwrap().started_at.unwrap();
    clock.advance(Duration::from_secs(7));
    drop(held);
    in_time(test.service.wait(first)).await.unwrap();
    let job = in_time(test.service.wait(second)).await.unwrap();
    assert_eq!(job.started_at, Some(claimed + Duration::from_secs(7)));
}

#[tokio::test]
async fn cancelling_in_every_state() {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    let running = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let queued = submit(&test.service, sample_request("b")).await.unwrap();

    for id in [queued, running] {
        let waiting = tokio::spawn({
            let service = test.service.clone();
            async move { service.wait(id).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(test.service.cancel(id).await.unwrap().state, JobState::Cancelled);
        let job = in_time(waiting).await.unwrap().unwrap();
        assert!(matches!(finished_images(&job), Err(ServiceError::JobCancelled)));
        assert_eq!(
            test.service.cancel(id).await.unwrap().state,
            JobState::Cancelled,
            "twice is fine"
        );
    }
    drop(held);
    let done = run(&test.service, sample_request("c")).await;
    let refused = test.service.cancel(done.id).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ServiceError::JobEnded {
                state: JobState::Succeeded,
                ..
            }
        ),
        "{refused:?}"
    );
    let unknown = JobId::from_u128(99);
    assert!(matches!(
        test.service.cancel(unknown).await,
        Err(ServiceError::JobNotFound { .. })
    ));
    assert!(matches!(
        test.service.fetch(unknown).await,
        Err(ServiceError::JobNotFound { .. })
    ));
    assert!(matches!(
        test.service.wait(unknown).await,
        Err(ServiceError::JobNotFound { .. })
    ));
    eventually(async || stored_inputs(&test).await == 0 && stored_outputs(&test).await == 1).await;
}

#[tokio::test]
async fn a_synchronous_caller_who_leaves_takes_the_job_along_unless_another_waits() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let other = tokio::spawn({
        let service = test.service.clone();
        async move { service.wait(id).await }
    });
    tokio::time::sleep(A_MOMENT).await;
    assert!(
        tokio::time::timeout(A_MOMENT, test.service.wait_or_cancel(id))
            .await
            .is_err()
    );
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(
        test.service.fetch(id).await.unwrap().state,
        JobState::Running,
        "another waits"
    );
    other.abort();
    let _ = other.await;
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(
        test.service.fetch(id).await.unwrap().state,
        JobState::Running,
        "it waited without a claim to it"
    );
    assert!(
        tokio::time::timeout(A_MOMENT, test.service.wait_or_cancel(id))
            .await
            .is_err()
    );
    eventually(async || test.service.fetch(id).await.unwrap().state == JobState::Cancelled).await;
    assert!(test.service.inner.waiters.lock().unwrap().is_empty());
}

#[tokio::test]
async fn waiting_to_the_end_does_not_cancel() {
    let test = TestService::start(FakeExecutor::new());
    let id = submit(&test.service, sample_request("x")).await.unwrap();
    let job = in_time(test.service.wait_or_cancel(id)).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(test.service.fetch(id).await.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn who_begins_to_wait_just_as_the_last_one_leaves_gets_the_pictures() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut first = Box::pin(test.service.wait_or_cancel(id));
    tokio::time::timeout(A_MOMENT, &mut first).await.unwrap_err();
    // On the test's one thread nothing runs between these two.
    drop(first);
    let mut second = Box::pin(test.service.wait_or_cancel(id));
    tokio::time::timeout(A_MOMENT, &mut second).await.unwrap_err();
    drop(held);
    assert_eq!(in_time(second).await.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn links_live_as_long_as_they_say() {
    let (clock, config) = manual();
    let test = TestService::start_with(FakeExecutor::new(), config);
    let job = run(&test.service, sample_request("x")).await;
    let image = &finished_images(&job).unwrap()[0];
    let link = test.service.link(&job, image);
    assert_eq!(link.ttl, Duration::from_secs(3600));
    let open = async |link: &str| test.service.open_link(link).await;
    // What the reply takes to be written must not make another number of it.
    clock.advance(Duration::from_millis(999));
    assert_eq!(test.service.link(&job, image).ttl, Duration::from_secs(3600));
    clock.advance(Duration::from_millis(2_999_001));
    let later = test.service.link(&job, image);
    assert_eq!(
        later.path, link.path,
        "every link to a picture ends at the same time"
    );
    assert_eq!(later.ttl, Duration::from_secs(600));
    assert!(open(&link.path).await.is_ok());
    let forged = open(&link.path.replace("_0.png", "_1.png")).await.unwrap_err();
    assert!(matches!(forged, ServiceError::LinkInvalid), "{forged:?}");
    clock.advance(Duration::from_secs(600));
    assert!(matches!(open(&link.path).await, Err(ServiceError::LinkExpired)));
    // Who asks then gets a new one, which ends with the picture at the latest.
    let new = test.service.link(&job, image);
    assert_eq!(new.ttl, Duration::from_secs(3600));
    assert!(open(&new.path).await.is_ok());
    clock.advance(Duration::from_secs(86_400 - 2 * 3600));
    let last = test.service.link(&job, image);
    assert_eq!(last.ttl, Duration::from_secs(3600));
    clock.advance(Duration::from_secs(1800));
    assert_eq!(test.service.link(&job, image).ttl, Duration::from_secs(1800));
    let as_its_dialect_wanted = Job {
        delivery: Delivery {
            link_life: Some(Duration::from_secs(60)),
            ..job.delivery.clone()
        },
        ..job.clone()
    };
    let (_, link) = test.service.links(&as_its_dialect_wanted).remove(0);
    assert!(open(&link.path).await.is_ok(), "also where that was over");
    clock.advance(Duration::from_secs(1800));
    assert_eq!(test.service.link(&job, image).ttl, Duration::ZERO);
}

#[tokio::test]
async fn a_picture_that_was_deleted_early_is_gone() {
    let test = TestService::start(FakeExecutor::new());
    let job = run(&test.service, sample_request("x")).await;
    let image = &finished_images(&job).unwrap()[0];
    let link = test.service.link(&job, image);
    test.parts.images.delete(&image.key).await.unwrap();
    let gone = test.service.open_link(&link.path).await.unwrap_err();
    assert!(matches!(gone, ServiceError::ImageGone), "{gone:?}");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_sweeper_deletes_what_nobody_can_ask_for() {
    // Objects get the time of the operating system, so the service's clock starts there.
    let clock = ManualClock::new(pentimento_types::SystemClock.wall());
    let config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    let test = TestService::start_with(FakeExecutor::new(), config);
    let job = run(&test.service, sample_request("x")).await;
    let orphan = pentimento_types::ImageKey::input(JobId::from_u128(5), pentimento_types::InputRole::Init);
    test.parts
        .images
        .put(&orphan, Bytes::from_static(b"left by a crash"))
        .await
        .unwrap();
    let sweep = async || {
        maintenance::sweep(&test.service.inner).await;
        maintenance::sweep_orphans(&test.service.inner).await.unwrap();
        (stored_inputs(&test).await, stored_outputs(&test).await)
    };
    clock.advance(Duration::from_secs(3500));
    assert_eq!(
        sweep().await,
        (1, 1),
        "the input may belong to a job that is just being stored"
    );
    clock.advance(Duration::from_secs(200));
    assert_eq!(sweep().await, (0, 1));
    clock.advance(Duration::from_secs(86_400 - 3700));
    assert_eq!(sweep().await, (0, 1));
    assert!(test.service.fetch(job.id).await.is_ok());
    clock.advance(Duration::from_secs(601));
    maintenance::sweep(&test.service.inner).await;
    assert_eq!(stored_outputs(&test).await, 0, "by the record alone");
    assert!(matches!(
        test.service.fetch(job.id).await,
        Err(ServiceError::JobNotFound { .. })
    ));
}

#[tokio::test]
async fn pictures_without_a_record_are_found_when_all_are_looked_through() {
    let clock = ManualClock::new(pentimento_types::SystemClock.wall());
    let config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    let (mut held, executor) = Held::new();
    let test = TestService::start_with(executor, config);
    let forgotten = run(&test.service, sample_request("a")).await;
    assert!(test.parts.store.remove(forgotten.id).await.unwrap());
    let running = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    // Of a job of several images, the first may be stored long before the last.
    let first = pentimento_types::ImageKey::output("x", running, 0, "png");
    test.parts
        .images
        .put(&first, Bytes::from_static(b"first"))
        .await
        .unwrap();
    let look = async || {
        maintenance::sweep(&test.service.inner).await;
        maintenance::sweep_orphans(&test.service.inner).await.unwrap();
        stored_outputs(&test).await
    };
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(look().await, 2, "its links may still live");
    clock.advance(Duration::from_secs(601));
    assert_eq!(look().await, 1);
    assert!(test.parts.images.has(&first).await.unwrap());
    drop(held);
}

#[tokio::test]
async fn the_sweeper_keeps_inputs_of_waiting_jobs_and_queues_lost_ones() {
    let clock = ManualClock::new(pentimento_types::SystemClock.wall());
    let mut config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    config.service.running_jobs = 1;
    // Longer than the time that this test lets pass.
    config.service.lease = Duration::from_secs(86_400);
    let (mut held, executor) = Held::new();
    let test = TestService::start_with(executor, config);
    submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let lost = submit(&test.service, sample_request("b")).await.unwrap();
    // As after a crash between storing and queueing.
    test.parts.queue.forget(lost).await.unwrap();
    clock.advance(Duration::from_secs(7200));
    maintenance::sweep(&test.service.inner).await;
    maintenance::sweep_orphans(&test.service.inner).await.unwrap();
    assert_eq!(stored_inputs(&test).await, 2);
    drop(held);
    assert_eq!(
        in_time(test.service.wait(lost)).await.unwrap().state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn pictures_that_could_not_be_looked_through_for_want_of_the_records_are_looked_at_again() {
    let (store, test) = TroubledStore::start(FakeExecutor::new());
    maintenance::sweep_orphans(&test.service.inner).await.unwrap();
    store.lists_nothing.store(true, Ordering::Relaxed);
    let error = maintenance::sweep_orphans(&test.service.inner).await.unwrap_err();
    assert!(matches!(error, ServiceError::Store { .. }), "{error:?}");
}

#[tokio::test]
async fn a_job_that_is_stored_during_a_sweep_keeps_what_is_known_of_it() {
    let (mut held, executor) = Held::new();
    let (store, test) = TroubledStore::start(executor);
    submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let (is_made, let_go) = store.hold_list();
    let inner = Arc::clone(&test.service.inner);
    let sweep = tokio::spawn(async move { maintenance::sweep(&inner).await });
    in_time(is_made).await.unwrap();
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    let_go.send(()).unwrap();
    in_time(sweep).await.unwrap();
    assert!(test.service.time_left(id).is_some());
    drop(held);
    in_time(test.service.wait(id)).await.unwrap();
    // Jobs that have ended are still forgotten.
    eventually(async || test.service.time_left(id).is_none()).await;
}

#[tokio::test]
async fn a_shutdown_lets_accepted_jobs_end() {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    let running = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let queued = submit(&test.service, sample_request("b")).await.unwrap();
    let closing = tokio::spawn({
        let service = test.service.clone();
        async move { service.shutdown(LONG).await }
    });
    eventually(async || test.service.status().await.stopping).await;
    let refused = submit(&test.service, sample_request("c")).await.unwrap_err();
    assert!(matches!(refused, ServiceError::ShuttingDown), "{refused:?}");
    assert!(!test.service.status().await.ready);
    assert!(!closing.is_finished());
    drop(held);
    in_time(closing).await.unwrap();
    for id in [running, queued] {
        assert_eq!(test.service.fetch(id).await.unwrap().state, JobState::Succeeded);
    }
    in_time(async { tokio::task::spawn_blocking(|| test.engine.join()).await })
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_shutdown_without_time_tells_everybody_why() {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    let running = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let queued = submit(&test.service, sample_request("b")).await.unwrap();
    let waiting = tokio::spawn({
        let service = test.service.clone();
        async move { service.wait(queued).await.unwrap() }
    });
    let closing = tokio::spawn({
        let service = test.service.clone();
        async move { service.shutdown(Duration::ZERO).await }
    });
    let job = in_time(waiting).await.unwrap();
    let failure = finished_images(&job).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Unavailable);
    assert!(failure.to_string().contains("send it again"), "{failure}");
    drop(held);
    in_time(closing).await.unwrap();
    assert_eq!(test.service.fetch(running).await.unwrap().state, JobState::Failed);
    assert_eq!(stored_inputs(&test).await, 0);
    in_time(test.service.shutdown(LONG)).await;
}

#[tokio::test]
async fn a_disk_that_does_not_answer_while_a_job_is_stored_does_not_hold_up_the_end() {
    let (clock, config) = manual();
    let test = TestService::start_with(FakeExecutor::new(), config);
    let storing = test.service.inner.admission.read().await;
    let closing = tokio::spawn({
        let service = test.service.clone();
        async move { service.shutdown(Duration::from_secs(5)).await }
    });
    eventually(async || test.service.status().await.stopping).await;
    // Whoever comes now is told at once, and does not stand in line behind the shutdown.
    let refused = in_time(Box::pin(submit(&test.service, sample_request("a")))).await;
    assert!(matches!(refused, Err(ServiceError::ShuttingDown)), "{refused:?}");
    eventually(async || {
        clock.advance(Duration::from_secs(1));
        closing.is_finished()
    })
    .await;
    drop(storing);
}

#[tokio::test]
async fn a_second_shutdown_waits_for_what_a_dropped_one_has_waited_for() {
    let test = TestService::start(FakeExecutor::new());
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    let mut tasks = test.service.inner.tasks.lock().await;
    tasks.spawn(async move { drop(ends.await) });
    drop(tasks);
    let first = tokio::time::timeout(A_MOMENT, test.service.shutdown(Duration::ZERO)).await;
    assert!(first.is_err(), "a task goes on");
    let second = tokio::time::timeout(A_MOMENT, test.service.shutdown(Duration::ZERO)).await;
    assert!(second.is_err(), "it still does");
    drop(end);
    in_time(test.service.shutdown(Duration::ZERO)).await;
}
