//! Whoever watches a job sees its life, and its end; the jobs of others are not there to be seen.

use pentimento_engine::{FinishedImage, Precision};
use pentimento_types::{Findings, JobState, Progress};

use super::*;
use crate::{News, Seen, Watcher};

/// The next news; the end is a failure of the test.
async fn news(watcher: &mut Watcher) -> News {
    match in_time(watcher.next()).await.unwrap() {
        Seen::News(news) => news,
        other @ (Seen::Ended(_) | Seen::Leaving) => panic!("{other:?}"),
    }
}

async fn ended(watcher: &mut Watcher) -> Job {
    loop {
        match in_time(watcher.next()).await.unwrap() {
            Seen::News(_) => {}
            Seen::Ended(job) => return *job,
            Seen::Leaving => panic!("the service stops"),
        }
    }
}

fn me() -> ApiKeyId {
    ApiKeyId::anonymous()
}

#[tokio::test]
async fn a_watcher_sees_the_states_the_progress_and_the_end() {
    let (mut held, executor) = Held::new();
    let mut config = TestConfig::default();
    config.service.running_jobs = 1;
    let test = TestService::start_with(executor, config);
    let first = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut request = sample_request("hold, too");
    request.recipe.strength = 1.0;
    let id = submit(&test.service, request).await.unwrap();
    let mut watcher = test.service.watch(&me(), id, true).await.unwrap();
    let now = watcher.now();
    assert_eq!((now.state, now.attempt), (JobState::Queued, 0));
    assert_eq!(test.service.queue_position(id), Some(1));
    test.service.cancel(first).await.unwrap();
    held.step();
    held.arrives().await;
    let running = news(&mut watcher).await;
    assert_eq!((running.state, running.attempt), (JobState::Running, 1));
    // Prepared, and then the first of four evaluations.
    held.step();
    held.arrives().await;
    held.step();
    held.arrives().await;
    let mut latest = watcher.now();
    while latest.preview.is_none() {
        latest = news(&mut watcher).await;
    }
    assert_eq!(latest.progress, Some(Progress { done: 1, total: 4 }));
    let preview = latest.preview.unwrap();
    assert_eq!((preview.index, preview.at), (0, Progress { done: 1, total: 4 }));
    assert!(preview.file.starts_with(&[0xff, 0xd8, 0xff]), "a JPEG file");
    drop(held);
    let job = ended(&mut watcher).await;
    assert_eq!((job.id, job.state), (id, JobState::Succeeded));
    drop(watcher);
    eventually(async || test.service.inner.watched.len() == 0).await;
}

#[tokio::test]
async fn who_comes_late_is_told_the_end_and_who_is_slow_only_the_latest() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let mut request = sample_request("hold");
    request.recipe.strength = 1.0;
    let id = submit(&test.service, request).await.unwrap();
    held.arrives().await;
    let mut slow = test.service.watch(&me(), id, false).await.unwrap();
    for _ in 0..4 {
        held.step();
        held.arrives().await;
    }
    eventually(async || {
        test.service
            .progress(id)
            .is_some_and(|progress| progress.done == 3)
    })
    .await;
    let latest = news(&mut slow).await;
    assert_eq!(latest.progress.map(|progress| progress.done), Some(3));
    assert_eq!(latest.preview, None, "nobody wanted to see it");
    drop(held);
    assert_eq!(ended(&mut slow).await.id, id);
    let mut late = test.service.watch(&me(), id, true).await.unwrap();
    assert!(matches!(in_time(late.next()).await.unwrap(), Seen::Ended(_)));
}

#[tokio::test]
async fn a_watcher_waits_for_the_job_whose_caller_has_hung_up() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut watcher = test.service.watch(&me(), id, false).await.unwrap();
    let gone = tokio::time::timeout(A_MOMENT, test.service.wait_or_cancel(id)).await;
    assert!(gone.is_err());
    drop(held);
    assert_eq!(ended(&mut watcher).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn watchers_leave_with_the_service() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut watcher = test.service.watch(&me(), id, false).await.unwrap();
    let closing = tokio::spawn({
        let service = test.service.clone();
        async move { service.shutdown(Duration::ZERO).await }
    });
    // Where the job does not end with the service, the watcher does.
    while let Seen::News(_) = in_time(watcher.next()).await.unwrap() {}
    drop(held);
    in_time(closing).await.unwrap();
}

#[tokio::test]
async fn a_thousand_watchers_of_one_job_all_see_its_end() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let mut watcher = test.service.watch(&me(), id, true).await.unwrap();
        watchers.spawn(async move { ended(&mut watcher).await.state });
    }
    drop(held);
    let states = in_time(watchers.join_all()).await;
    assert_eq!(states, vec![JobState::Succeeded; 1000]);
    eventually(async || test.service.inner.watched.len() == 0).await;
}

#[tokio::test]
async fn jobs_of_others_are_not_there() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let id = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let other = ApiKeyId::new("other");
    let service = &test.service;
    let unknown = |result: Result<(), ServiceError>| {
        assert!(
            matches!(result, Err(ServiceError::JobNotFound { .. })),
            "{result:?}"
        );
    };
    unknown(service.fetch_own(&other, id).await.map(drop));
    unknown(service.cancel_own(&other, id).await.map(drop));
    unknown(service.delete_own(&other, id).await);
    unknown(service.watch(&other, id, true).await.map(drop));
    let page = service.list_own(&other, Vec::new(), (None, 10)).await.unwrap();
    assert!(page.jobs.is_empty() && !page.has_more);
    assert_eq!(
        service.fetch_own(&me(), id).await.unwrap().state,
        JobState::Running
    );
    assert_eq!(service.inner.watched.len(), 1, "the attempt's alone");
    drop(held);
}

#[tokio::test]
async fn jobs_are_listed_from_the_newest_page_by_page() {
    let test = TestService::start(FakeExecutor::new());
    let mut ids = Vec::new();
    for prompt in ["a", "b", "c"] {
        ids.push(run(&test.service, sample_request(prompt)).await.id);
    }
    ids.reverse();
    let page = async |after, limit| {
        let page = test
            .service
            .list_own(&me(), Vec::new(), (after, limit))
            .await
            .unwrap();
        let found: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        (found, page.has_more)
    };
    assert_eq!(page(None, 2).await, (ids[..2].to_vec(), true));
    assert_eq!(page(Some(ids[1]), 2).await, (ids[2..].to_vec(), false));
    assert_eq!(page(None, 3).await, (ids.clone(), false));
    let failed = test
        .service
        .list_own(&me(), vec![JobState::Failed], (None, 3))
        .await;
    assert!(failed.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_picture_that_is_finished_after_its_job_was_deleted_is_not_kept() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let inner = &test.service.inner;
    for is_kept in [true, false] {
        let id = submit(&test.service, sample_request("hold")).await.unwrap();
        held.arrives().await;
        let job = test.service.fetch(id).await.unwrap();
        if !is_kept {
            test.service.delete_own(&me(), id).await.unwrap();
        }
        let finished = FinishedImage {
            image: photo(),
            findings: Findings::default(),
            precision: Precision::F32,
        };
        crate::deliver::deliver(Arc::clone(inner), (job, Arc::default()), 0, finished)
            .await
            .unwrap();
        assert_eq!(stored_outputs(&test).await, usize::from(is_kept));
        if is_kept {
            test.service.delete_own(&me(), id).await.unwrap();
        }
        held.step();
    }
    drop(held);
}

#[tokio::test]
async fn a_deleted_job_leaves_nothing() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let job = run(&test.service, sample_request("x")).await;
    let link = &test.service.links(&job)[0].1;
    assert!(test.service.open_link(&link.path).await.is_ok());
    test.service.delete_own(&me(), job.id).await.unwrap();
    assert!(matches!(
        test.service.open_link(&link.path).await,
        Err(ServiceError::ImageGone)
    ));
    // One that runs is cancelled first.
    let running = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    test.service.delete_own(&me(), running).await.unwrap();
    for id in [job.id, running] {
        let again = test.service.delete_own(&me(), id).await;
        assert!(
            matches!(again, Err(ServiceError::JobNotFound { .. })),
            "{again:?}"
        );
    }
    drop(held);
    eventually(async || stored_inputs(&test).await == 0 && stored_outputs(&test).await == 0).await;
}
