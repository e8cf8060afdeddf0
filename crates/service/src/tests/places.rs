//! Places for jobs: taken before anything costly is done, given back by every failure, and shared by callers.

use std::num::NonZeroU32;

use pentimento_types::JobState;

use super::*;
use crate::{KeyLimits, KeyRing};

async fn submit_as(service: &Service, owner: &str, request: Request) -> Result<JobId, ServiceError> {
    let submission = Submission {
        owner: ApiKeyId::new(owner),
        ..submission(request, LIMITS)
    };
    service.submit(submission).await
}

#[tokio::test]
async fn a_place_is_taken_before_a_picture_is_fetched_and_given_back_when_the_caller_leaves() {
    let config = TestConfig {
        unfinished_jobs: 1,
        ..TestConfig::default()
    };
    let test = TestService::start_with(FakeExecutor::new(), config);
    // Takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/picture.png", silent.local_addr().unwrap());
    let mut request = sample_request("x");
    request.inputs = Inputs::new(ImageSource::Url(url));
    let service = test.service.clone();
    let fetching = tokio::spawn(async move { submit(&service, request).await });
    let _connection = in_time(silent.accept()).await.unwrap();
    // A picture that nobody looks at: the place comes first.
    let mut unread = sample_request("x");
    unread.inputs = Inputs::new(inline(b"GIF89a"));
    let refused = submit(&test.service, unread).await.unwrap_err();
    assert!(matches!(refused, ServiceError::Overloaded), "{refused:?}");
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    let job = run(&test.service, sample_request("x")).await;
    assert_eq!(job.state, JobState::Succeeded);
}

#[tokio::test]
async fn what_is_refused_holds_no_place() {
    let config = TestConfig {
        unfinished_jobs: 2,
        ..TestConfig::default()
    };
    let test = TestService::start_with(FakeExecutor::new(), config);
    for _ in 0..5 {
        let mut request = sample_request("x");
        request.inputs = Inputs::new(inline(b"GIF89a"));
        let refused = submit(&test.service, request).await.unwrap_err();
        assert!(
            matches!(refused, ServiceError::ImageUndecodable { .. }),
            "{refused:?}"
        );
    }
    assert_eq!(
        run(&test.service, sample_request("x")).await.state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn a_key_has_no_more_jobs_at_once_than_its_bound() {
    let (held, executor) = Held::new();
    let limits = KeyLimits {
        jobs_at_once: NonZeroU32::new(2),
        requests_per_minute: None,
    };
    let config = TestConfig {
        keys: Arc::new(KeyRing::new([]).with_defaults(limits)),
        ..TestConfig::default()
    };
    let test = TestService::start_with(executor, config);
    let mut last = None;
    for _ in 0..2 {
        last = Some(
            submit_as(&test.service, "few", sample_request("hold"))
                .await
                .unwrap(),
        );
    }
    let refused = submit_as(&test.service, "few", sample_request("hold"))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ServiceError::JobsAtOnce { limit: 2 }),
        "{refused:?}"
    );
    assert!(refused.retry_after().is_some());
    let other = submit_as(&test.service, "other", sample_request("hold")).await;
    assert!(other.is_ok(), "others have their own");
    test.service.cancel(last.unwrap()).await.unwrap();
    let again = submit_as(&test.service, "few", sample_request("hold")).await;
    assert!(again.is_ok(), "one that has ended makes room");
    drop(held);
}

#[tokio::test]
async fn one_key_takes_neither_all_places_nor_all_slots() {
    let (held, executor) = Held::new();
    let mut config = TestConfig {
        unfinished_jobs: 16,
        ..TestConfig::default()
    };
    config.service.running_jobs = 4;
    let test = TestService::start_with(executor, config);
    let mut taken = 0;
    let refused = loop {
        match submit_as(&test.service, "flood", sample_request("hold")).await {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(refused, ServiceError::ShareTaken { held: 12 }),
        "{refused:?}"
    );
    assert_eq!(taken, 12, "three quarters");
    let one = submit_as(&test.service, "one", sample_request("hold")).await;
    let one = one.expect("there is a place for another key");
    // It gets into the engine though none of the flood's jobs has ended.
    eventually(async || test.service.fetch(one).await.unwrap().state == JobState::Running).await;
    let counts = test.parts.store.counts().await.unwrap();
    assert_eq!((counts.running, counts.queued), (4, 9));
    drop(held);
    let job = in_time(test.service.wait(one)).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
}
