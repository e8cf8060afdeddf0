//! Requests that are sent again: fault G 75, and numbers that are drawn again.

use std::sync::atomic::{AtomicU64, Ordering};

use pentimento_jobs::JobFilter;
use pentimento_types::{Idempotency, JobState};

use super::troubled_store::TroubledStore;
use super::*;

fn named(request: Request, digest: &str) -> Submission {
    Submission {
        idempotency: Some(Idempotency {
            key: "once".to_owned(),
            digest: digest.to_owned(),
        }),
        ..submission(request, LIMITS)
    }
}

async fn jobs(test: &TestService) -> usize {
    let all = test.parts.store.list(&JobFilter::default()).await;
    all.unwrap().len()
}

#[tokio::test]
async fn twins_are_one_job_and_leave_nothing_behind() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let twins: Vec<_> = (0..8)
        .map(|_| {
            let service = test.service.clone();
            tokio::spawn(async move { service.submit(named(sample_request("hold"), "d")).await })
        })
        .collect();
    let mut ids = Vec::new();
    for twin in twins {
        ids.push(in_time(twin).await.unwrap().unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(jobs(&test).await, 1);
    held.arrives().await;
    eventually(async || stored_inputs(&test).await == 1).await;
    drop(held);
    let job = in_time(test.service.wait(ids[0])).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
    // After its end, too.
    let again = test.service.submit(named(sample_request("hold"), "d")).await;
    assert_eq!(again.unwrap(), ids[0]);
    let until = test.parts.clock.now();
    let later = test
        .service
        .submit_until(named(sample_request("hold"), "d"), until, Box::new(()))
        .await;
    assert_eq!(later.unwrap(), ids[0]);
    assert_eq!(stored_outputs(&test).await, 1);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_a_new_day_is_a_new_one() {
    let (clock, config) = manual();
    let test = TestService::start_with(FakeExecutor::new(), config);
    let first = test
        .service
        .submit(named(sample_request("x"), "d"))
        .await
        .unwrap();
    let refused = test
        .service
        .submit(named(sample_request("y"), "e"))
        .await
        .unwrap_err();
    assert!(matches!(refused, ServiceError::KeyReused), "{refused:?}");
    let other = Submission {
        owner: ApiKeyId::new("other"),
        ..named(sample_request("y"), "e")
    };
    assert_ne!(test.service.submit(other).await.unwrap(), first);
    clock.advance(pentimento_jobs::KEY_LIFE);
    let next = test
        .service
        .submit(named(sample_request("x"), "d"))
        .await
        .unwrap();
    assert_ne!(next, first);
}

#[tokio::test]
async fn who_asks_again_is_answered_by_a_full_server_and_what_was_refused_is_not_remembered() {
    let (mut held, executor) = Held::new();
    let config = TestConfig {
        unfinished_jobs: 1,
        ..TestConfig::default()
    };
    let test = TestService::start_with(executor, config);
    let mut bad = sample_request("x");
    bad.inputs = Inputs::new(inline(b"GIF89a"));
    test.service.submit(named(bad, "d")).await.unwrap_err();
    let first = test.service.submit(named(sample_request("hold"), "e")).await;
    let first = first.unwrap();
    held.arrives().await;
    let full = submit(&test.service, sample_request("x")).await.unwrap_err();
    assert!(matches!(full, ServiceError::Overloaded));
    let again = test.service.submit(named(sample_request("hold"), "e")).await;
    assert_eq!(again.unwrap(), first);
    drop(held);
}

#[tokio::test]
async fn a_number_that_is_taken_is_drawn_again() {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    /// 0, 0, 1, 1, and so on.
    fn draw() -> u64 {
        DRAWN.fetch_add(1, Ordering::Relaxed) / 2
    }
    let test = TestService::start(FakeExecutor::new());
    let owner = ApiKeyId::anonymous();
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let numbered = Submission {
            number: Some(draw),
            ..submission(sample_request("x"), LIMITS)
        };
        let id = test.service.submit(numbered).await.unwrap();
        let number = test.service.fetch(id).await.unwrap().dialect.number.unwrap();
        let found = test.service.find_by_number(&owner, "", number).await.unwrap();
        assert_eq!(found.unwrap().id, id);
        numbers.push(number);
    }
    assert_eq!(numbers, [0, 1, 2, 3]);
    let stranger = ApiKeyId::new("stranger");
    let hidden = test.service.find_by_number(&stranger, "", 0).await.unwrap();
    assert!(hidden.is_none(), "only its owner finds it");
}

#[tokio::test]
async fn who_hangs_up_while_the_job_is_stored_finds_it_by_its_name_and_leaves_no_other() {
    for is_named in [true, false] {
        let (mut held, executor) = Held::new();
        let (store, test) = TroubledStore::start(executor);
        let (stored, let_go) = store.hold_insert();
        let submission = if is_named {
            named(sample_request("hold"), "d")
        } else {
            submission(sample_request("hold"), LIMITS)
        };
        let service = test.service.clone();
        let caller = tokio::spawn(async move { service.submit(submission).await });
        in_time(stored).await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        let_go.send(()).unwrap();
        let all = test.parts.store.list(&JobFilter::default()).await.unwrap();
        let id = all[0].id;
        if is_named {
            held.arrives().await;
            let again = test.service.submit(named(sample_request("hold"), "d")).await;
            assert_eq!(again.unwrap(), id);
            drop(held);
            let job = in_time(test.service.wait(id)).await.unwrap();
            assert_eq!(job.state, JobState::Succeeded);
        } else {
            let job = in_time(test.service.wait(id)).await.unwrap();
            assert_eq!(job.state, JobState::Cancelled);
            drop(held);
        }
    }
}
