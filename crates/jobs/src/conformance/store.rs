//! What every job store must do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pentimento_types::{ApiKeyId, ErrorKind, Idempotency, Job, JobFailure, JobId, JobOutcome, JobState};

use super::fixture::{A_MOMENT, Fixture, expect_refusal, insert, inserted, sample_image, sample_job};
use crate::{JobCounts, JobFilter, JobStore, JobsError, Refusal, Transition};

/// What went in comes out.
pub async fn a_stored_job_is_read_back_whole(store: &dyn JobStore) {
    let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH + Duration::from_secs(77));
    job.dialect.number = Some((1 << 53) - 1);
    job.idempotency = Some(Idempotency {
        key: "once".to_owned(),
        digest: "of the request".to_owned(),
    });
    job.delivery.webhook = Some("https://example.com/hook".to_owned());
    insert(store, job.clone()).await;
    assert_eq!(store.get(job.id).await.expect("readable"), Some(job));
}

/// A second insert of the same id changes nothing.
pub async fn an_id_is_taken_once(store: &dyn JobStore) {
    let id = inserted(store).await;
    let mut twin = sample_job(id, SystemTime::UNIX_EPOCH);
    twin.recipe.seed = 8;
    let place = store.reserve(&twin.owner).expect("a free place");
    let second = store.insert(twin, place).await;
    assert!(matches!(second, Err(JobsError::Duplicate { .. })), "{second:?}");
    let kept = store.get(id).await.expect("readable").expect("still there");
    assert_eq!(kept.recipe.seed, 7);
}

/// Every verb on an unknown id says so.
pub async fn unknown_jobs_are_not_found(store: &dyn JobStore) {
    let id = JobId::new();
    assert_eq!(store.get(id).await.expect("readable"), None);
    let not_found = |result: Result<(), JobsError>| {
        assert!(matches!(result, Err(JobsError::NotFound { .. })), "{result:?}");
    };
    not_found(store.transition(id, Transition::Cancel).await.map(drop));
    not_found(store.wait_until_ended(id).await.map(drop));
}

/// With a bound of two: the third unfinished job is refused at once, and an end makes room.
pub async fn jobs_beyond_the_bound_are_refused(store: &dyn JobStore) {
    let first = inserted(store).await;
    inserted(store).await;
    let counts = store.counts().await.expect("readable");
    assert_eq!(
        counts,
        JobCounts {
            queued: 2,
            running: 0,
            limit: 2
        }
    );
    let refused = store.reserve(&ApiKeyId::anonymous());
    assert!(
        matches!(refused, Err(JobsError::Full { limit: 2 })),
        "{refused:?}"
    );
    store.transition(first, Transition::Cancel).await.expect("queued");
    inserted(store).await;
}

/// With a bound of one: a request that is not a job yet has the only place, and gives it back.
pub async fn a_place_counts_from_its_reservation(store: &dyn JobStore) {
    let owner = ApiKeyId::anonymous();
    let place = store.reserve(&owner).expect("a free place");
    assert!(matches!(store.reserve(&owner), Err(JobsError::Full { limit: 1 })));
    let counts = store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (0, 0), "it is no job yet");
    drop(place);
    let id = inserted(store).await;
    let twin = sample_job(id, SystemTime::UNIX_EPOCH);
    assert!(matches!(store.reserve(&owner), Err(JobsError::Full { limit: 1 })));
    store.transition(id, Transition::Cancel).await.expect("queued");
    let place = store.reserve(&owner).expect("the end gives it back");
    let second = store.insert(twin, place).await;
    assert!(matches!(second, Err(JobsError::Duplicate { .. })), "{second:?}");
    assert!(store.reserve(&owner).is_ok(), "a refusal gives it back");
}

/// With a bound of eight: a caller that takes what it gets leaves two, and another one finds them.
pub async fn one_owner_leaves_places_for_others(store: &dyn JobStore) {
    let (many, one) = (ApiKeyId::new("many"), ApiKeyId::new("one"));
    for _ in 0..6 {
        let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
        job.owner = many.clone();
        insert(store, job).await;
    }
    let refused = store.reserve(&many);
    assert!(
        matches!(refused, Err(JobsError::ShareFull { held: 6 })),
        "{refused:?}"
    );
    let place = store.reserve_within(&one, 1).expect("the first one");
    let refused = store.reserve_within(&one, 1);
    assert!(
        matches!(refused, Err(JobsError::OwnerFull { limit: 1 })),
        "{refused:?}"
    );
    drop(place);
    let places = [store.reserve(&one), store.reserve(&one)];
    assert!(places.iter().all(Result::is_ok));
    assert!(matches!(store.reserve(&one), Err(JobsError::Full { limit: 8 })));
}

/// Start, requeue, start, succeed, with the counts at each stage.
pub async fn a_life_goes_through_its_states(fixture: &Fixture) {
    let store = &*fixture.store;
    let id = inserted(store).await;
    let job = store
        .transition(id, Transition::Start { attempt: 0 })
        .await
        .expect("queued");
    assert_eq!((job.state, job.attempt), (JobState::Running, 1));
    let counts = store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (0, 1));

    let job = store
        .transition(
            id,
            Transition::Requeue {
                attempt: 1,
                not_before: None,
            },
        )
        .await
        .expect("running");
    assert_eq!((job.state, job.attempt), (JobState::Queued, 1));
    store
        .transition(id, Transition::Start { attempt: 1 })
        .await
        .expect("queued");

    fixture.pass(Duration::from_millis(20)).await;
    let images = vec![sample_image(id)];
    let job = store
        .transition(
            id,
            Transition::Succeed {
                attempt: 2,
                images: images.clone(),
                began_at: None,
            },
        )
        .await
        .expect("running");
    assert_eq!(job.outcome, Some(JobOutcome::Succeeded(images)));
    assert!(
        job.started_at.is_some() && job.started_at < job.finished_at,
        "{job:?}"
    );
    let counts = store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (0, 0));
    assert_eq!(store.get(id).await.expect("readable"), Some(job));
}

/// It counts like one that waits, does not start, and waits once its images are there.
pub async fn a_job_whose_images_are_fetched_has_its_place(store: &dyn JobStore) {
    let id = JobId::new();
    let job = Job {
        state: JobState::Fetching,
        ..sample_job(id, SystemTime::UNIX_EPOCH)
    };
    insert(store, job).await;
    let counts = store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (1, 0));
    let start = Transition::Start { attempt: 0 };
    let refused = store.transition(id, start.clone()).await.expect_err("no images");
    assert!(matches!(refused, JobsError::Refused(_)), "{refused:?}");
    let fetched = Transition::Fetched {
        notes: Vec::new(),
        work: 7,
        keeps_everything: true,
    };
    let job = store.transition(id, fetched).await.expect("fetching");
    assert_eq!((job.state, job.work), (JobState::Queued, 7));
    assert!(job.recipe.keeps_everything);
    let counts = store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (1, 0));
    store.transition(id, start).await.expect("queued");
}

/// Nothing changes an ended job.
pub async fn a_final_state_stays(store: &dyn JobStore) {
    let id = inserted(store).await;
    let failure = JobFailure {
        kind: ErrorKind::Internal,
        message: "a fault".to_owned(),
    };
    let ended = store
        .transition(
            id,
            Transition::Fail {
                attempt: 0,
                failure: failure.clone(),
            },
        )
        .await
        .expect("queued");
    for transition in [
        Transition::Start { attempt: 0 },
        Transition::Requeue {
            attempt: 0,
            not_before: None,
        },
        Transition::Succeed {
            attempt: 0,
            images: Vec::new(),
            began_at: None,
        },
        Transition::Fail { attempt: 0, failure },
        Transition::Cancel,
    ] {
        expect_refusal(store.transition(id, transition).await, Refusal::Ended);
    }
    assert_eq!(store.get(id).await.expect("readable"), Some(ended));
}

/// Sixteen workers that saw the same job start it once.
pub async fn one_of_two_racing_changes_wins(fixture: &Fixture) {
    let id = inserted(&*fixture.store).await;
    let racers: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&fixture.store);
            tokio::spawn(async move { store.transition(id, Transition::Start { attempt: 0 }).await })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        match racer.await.expect("no panic") {
            Ok(_) => winners += 1,
            lost => expect_refusal(lost, Refusal::StaleAttempt),
        }
    }
    assert_eq!(winners, 1);
    let job = fixture.store.get(id).await.expect("readable").expect("there");
    assert_eq!(job.attempt, 1);
}

/// Two waiters from before the end and one from after it all get the ended job.
pub async fn a_waiter_is_told_of_the_end(fixture: &Fixture) {
    let id = inserted(&*fixture.store).await;
    let wait = || {
        let store = Arc::clone(&fixture.store);
        tokio::spawn(async move { store.wait_until_ended(id).await })
    };
    let early = [wait(), wait()];
    tokio::time::sleep(A_MOMENT).await;
    assert!(early.iter().all(|waiter| !waiter.is_finished()));
    fixture
        .store
        .transition(id, Transition::Start { attempt: 0 })
        .await
        .expect("queued");
    tokio::time::sleep(A_MOMENT).await;
    assert!(
        early.iter().all(|waiter| !waiter.is_finished()),
        "a start is not an end"
    );
    let ended = fixture
        .store
        .transition(id, Transition::Cancel)
        .await
        .expect("running");
    for waiter in early.into_iter().chain([wait()]) {
        let job = waiter.await.expect("no panic").expect("known");
        assert_eq!(job, ended);
    }
}

/// State, owner, page.
pub async fn lists_are_filtered_and_paged(store: &dyn JobStore) {
    let mut ids = vec![
        inserted(store).await,
        inserted(store).await,
        inserted(store).await,
    ];
    let mut of_alice = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
    of_alice.owner = ApiKeyId::new("alice");
    ids.push(of_alice.id);
    insert(store, of_alice).await;
    ids.sort_unstable();
    store
        .transition(ids[1], Transition::Cancel)
        .await
        .expect("queued");

    let list = async |filter: JobFilter| -> Vec<JobId> {
        let jobs = store.list(&filter).await.expect("readable");
        jobs.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(list(JobFilter::default()).await, ids);
    let queued = JobFilter {
        states: vec![JobState::Queued],
        ..JobFilter::default()
    };
    assert_eq!(list(queued).await, [ids[0], ids[2], ids[3]]);
    let alice = JobFilter {
        owner: Some(ApiKeyId::new("alice")),
        ..JobFilter::default()
    };
    assert_eq!(list(alice).await.len(), 1);
    let page = JobFilter {
        after: Some(ids[0]),
        limit: 2,
        ..JobFilter::default()
    };
    assert_eq!(list(page.clone()).await, [ids[1], ids[2]]);
    let newest = JobFilter {
        after: None,
        newest_first: true,
        ..page
    };
    assert_eq!(list(newest.clone()).await, [ids[3], ids[2]]);
    let next = JobFilter {
        after: Some(ids[2]),
        ..newest
    };
    assert_eq!(list(next).await, [ids[1], ids[0]]);
}

/// A job that has ended is removed once; one that has not stays.
pub async fn an_ended_job_is_removed(store: &dyn JobStore) {
    let (ended, open) = (inserted(store).await, inserted(store).await);
    let unknown = JobId::new();
    for id in [ended, open, unknown] {
        assert!(!store.remove(id).await.expect("readable"), "{id} has not ended");
    }
    store.transition(ended, Transition::Cancel).await.expect("queued");
    assert!(store.remove(ended).await.expect("readable"));
    assert!(!store.remove(ended).await.expect("readable"), "it is gone");
    assert_eq!(store.get(ended).await.expect("readable"), None);
    assert!(store.get(open).await.expect("readable").is_some());
    // Nothing that was kept of it is in the way of others.
    let another = inserted(store).await;
    store
        .transition(another, Transition::Cancel)
        .await
        .expect("queued");
    assert!(store.get(another).await.expect("readable").is_some());
}

/// Only ended jobs expire, and only those that ended before the given time.
pub async fn old_ends_expire(fixture: &Fixture) {
    let store = &*fixture.store;
    let (old, open) = (inserted(store).await, inserted(store).await);
    store.transition(old, Transition::Cancel).await.expect("queued");
    fixture.pass(Duration::from_millis(20)).await;
    let recent = inserted(store).await;
    let ended = store.transition(recent, Transition::Cancel).await;
    let between = ended.expect("queued").finished_at.expect("ended");
    let expired = store.expire(between).await.expect("readable");
    assert_eq!(expired, [old]);
    assert_eq!(store.get(old).await.expect("readable"), None);
    for id in [open, recent] {
        assert!(store.get(id).await.expect("readable").is_some());
    }
}

/// The number of a dialect leads to one job as long as the job is kept; another dialect may have the same.
pub async fn a_number_leads_to_its_job(fixture: &Fixture) {
    let store = &*fixture.store;
    let numbered = |dialect: &str, number| {
        let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
        job.dialect.name = dialect.to_owned();
        job.dialect.number = Some(number);
        job
    };
    let largest = (1 << 53) - 1;
    let (first, second, other) = (numbered("a", 7), numbered("a", largest), numbered("b", 7));
    for job in [&first, &second, &other] {
        insert(store, job.clone()).await;
    }
    let find = async |dialect, number| {
        let found = store.find_by_number(dialect, number).await.expect("readable");
        found.map(|job| job.id)
    };
    assert_eq!(find("a", 7).await, Some(first.id));
    assert_eq!(find("a", largest).await, Some(second.id));
    assert_eq!(find("b", 7).await, Some(other.id));
    assert_eq!(find("b", 8).await, None);
    let place = store.reserve(&first.owner).expect("a free place");
    let taken = store.insert(numbered("a", 7), place).await;
    assert!(matches!(taken, Err(JobsError::NumberTaken)), "{taken:?}");
    assert_eq!(find("a", 7).await, Some(first.id));
    store
        .transition(first.id, Transition::Cancel)
        .await
        .expect("queued");
    assert_eq!(find("a", 7).await, Some(first.id), "an end changes nothing");
    fixture.pass(Duration::from_millis(20)).await;
    let marker = inserted(store).await;
    let marker = store.transition(marker, Transition::Cancel).await;
    let now = marker.expect("queued").finished_at.expect("ended");
    store.expire(now).await.expect("readable");
    assert_eq!(find("a", 7).await, None);
    insert(store, numbered("a", 7)).await;
}
