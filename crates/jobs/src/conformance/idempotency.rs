//! What every job store must do with the callers' own names for their requests.

use std::sync::Arc;
use std::time::Duration;

use pentimento_types::{ApiKeyId, ErrorKind, Idempotency, Job, JobFailure, JobId};

use super::fixture::{Fixture, insert, inserted, sample_job};
use crate::{Inserted, JobFilter, JobStore, JobsError, KEY_LIFE, Transition};

fn keyed(fixture: &Fixture, owner: &str, digest: &str) -> Job {
    let mut job = sample_job(JobId::new(), fixture.clock.wall());
    job.owner = ApiKeyId::new(owner);
    job.idempotency = Some(Idempotency {
        key: "once".to_owned(),
        digest: digest.to_owned(),
    });
    job
}

async fn try_insert(store: &dyn JobStore, job: Job) -> Result<Inserted, JobsError> {
    let place = store.reserve(&job.owner).expect("a free place");
    store.insert(job, place).await
}

async fn number_of_jobs(store: &dyn JobStore) -> usize {
    store.list(&JobFilter::default()).await.expect("readable").len()
}

async fn job_of(store: &dyn JobStore, owner: &str) -> Option<JobId> {
    let found = store.find_by_key(&ApiKeyId::new(owner), "once").await;
    found.expect("readable").map(|job| job.id)
}

/// The second is not stored and leads to the first; somebody else's key is another one.
pub async fn the_same_request_is_the_same_job(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = keyed(fixture, "a", "d");
    assert_eq!(job_of(store, "a").await, None);
    insert(store, first.clone()).await;
    let second = try_insert(store, keyed(fixture, "a", "d")).await;
    assert_eq!(second.expect("the same"), Inserted::Known(first.id));
    let other = keyed(fixture, "b", "d");
    insert(store, other.clone()).await;
    assert_eq!(job_of(store, "a").await, Some(first.id));
    assert_eq!(job_of(store, "b").await, Some(other.id));
    assert_eq!(number_of_jobs(store).await, 2);
    let counts = store.counts().await.expect("readable");
    assert_eq!(counts.queued, 2, "the twin gave its place back");
    store
        .transition(first.id, Transition::Cancel)
        .await
        .expect("queued");
    let third = try_insert(store, keyed(fixture, "a", "d")).await;
    assert_eq!(third.expect("an end changes nothing"), Inserted::Known(first.id));
}

/// And nothing is stored of it.
pub async fn another_request_under_its_key_is_refused(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = keyed(fixture, "a", "d");
    insert(store, first.clone()).await;
    let other = try_insert(store, keyed(fixture, "a", "e")).await;
    assert!(
        matches!(other, Err(JobsError::KeyReused { id }) if id == first.id),
        "{other:?}"
    );
    assert_eq!(number_of_jobs(store).await, 1);
}

/// With a bound of forty, sixteen at the same time.
pub async fn one_of_many_twins_is_stored(fixture: &Fixture) {
    let twins: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&fixture.store);
            let job = keyed(fixture, "a", "d");
            tokio::spawn(async move {
                let id = job.id;
                match try_insert(&*store, job).await.expect("the same request") {
                    Inserted::New => (true, id),
                    Inserted::Known(first) => (false, first),
                }
            })
        })
        .collect();
    let mut answers = Vec::new();
    for twin in twins {
        answers.push(twin.await.expect("no panic"));
    }
    assert_eq!(answers.iter().filter(|(is_new, _)| *is_new).count(), 1);
    assert!(answers.iter().all(|(_, id)| *id == answers[0].1), "{answers:?}");
    assert_eq!(number_of_jobs(&*fixture.store).await, 1);
}

/// The implementation's clock says when.
pub async fn a_key_is_free_again_after_a_day(fixture: &Fixture) {
    let store = &*fixture.store;
    let now = fixture.clock.wall();
    let made = |age: Duration| Job {
        created_at: now - age,
        ..keyed(fixture, "a", "d")
    };
    let almost = made(KEY_LIFE - Duration::from_secs(60));
    insert(store, almost.clone()).await;
    let second = try_insert(store, keyed(fixture, "a", "d"))
        .await
        .expect("the same");
    assert_eq!(second, Inserted::Known(almost.id));
    fixture.pass(Duration::from_secs(61)).await;
    assert_eq!(job_of(store, "a").await, None);
    let other = keyed(fixture, "a", "e");
    insert(store, other.clone()).await;
    assert_eq!(job_of(store, "a").await, Some(other.id));
    assert!(store.get(almost.id).await.expect("readable").is_some());
    // The end of the old one leaves the new one its key.
    let failure = JobFailure {
        kind: ErrorKind::Unavailable,
        message: "a fault".to_owned(),
    };
    let fail = Transition::Fail { attempt: 0, failure };
    store.transition(almost.id, fail).await.expect("queued");
    assert_eq!(job_of(store, "a").await, Some(other.id));
}

/// So that the request can be sent again, as the failure asks for.
pub async fn a_failure_that_may_pass_frees_the_key(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = keyed(fixture, "a", "d");
    insert(store, first.clone()).await;
    let failure = JobFailure {
        kind: ErrorKind::Unavailable,
        message: "the server was stopped".to_owned(),
    };
    let fail = Transition::Fail { attempt: 0, failure };
    store.transition(first.id, fail).await.expect("queued");
    assert_eq!(job_of(store, "a").await, None);
    let second = keyed(fixture, "a", "d");
    insert(store, second.clone()).await;
    assert_eq!(job_of(store, "a").await, Some(second.id));
}

/// The request is a new one then.
pub async fn a_forgotten_job_takes_its_key_along(fixture: &Fixture) {
    let store = &*fixture.store;
    let first = keyed(fixture, "a", "d");
    insert(store, first.clone()).await;
    store
        .transition(first.id, Transition::Cancel)
        .await
        .expect("queued");
    fixture.pass(Duration::from_millis(20)).await;
    let marker = inserted(store).await;
    let ended = store
        .transition(marker, Transition::Cancel)
        .await
        .expect("queued");
    let expired = store.expire(ended.finished_at.expect("ended")).await;
    assert_eq!(expired.expect("readable"), [first.id]);
    assert_eq!(job_of(store, "a").await, None);
    insert(store, keyed(fixture, "a", "d")).await;
}
