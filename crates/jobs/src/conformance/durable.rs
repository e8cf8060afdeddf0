//! What a store must do whose records outlive the process: each check kills whoever has them open, and opens them again.

use std::time::{Duration, SystemTime};

use pentimento_types::{ApiKeyId, ErrorKind, Idempotency, Job, JobFailure, JobId, JobState};

use super::fixture::{A_MOMENT, Fixture, LEASE, expect_refusal, insert, inserted, sample_image, sample_job};
use crate::{
    Claim, Inserted, JobFilter, JobsError, OutboxFilter, QueueEntry, Refusal, SendingTurn, Settlement,
    Transition,
};

/// Opens the records as the process before left them, which was killed: it neither closed anything nor will write again.
pub type Reopen = Box<dyn Fn() -> Fixture>;

async fn claims(fixture: &Fixture) -> Vec<Claim> {
    let mut claims = Vec::new();
    while let Ok(claim) = tokio::time::timeout(A_MOMENT, fixture.queue.claim(LEASE, &[])).await {
        claims.push(claim.expect("claimable"));
    }
    claims
}

async fn start(fixture: &Fixture, id: JobId, attempt: u32) -> Job {
    let started = fixture.store.transition(id, Transition::Start { attempt }).await;
    started.expect("queued")
}

async fn get(fixture: &Fixture, id: JobId) -> Job {
    let job = fixture.store.get(id).await.expect("readable");
    job.expect("it is still there")
}

/// Twenty jobs are queued when the process is killed: all twenty are queued in their order, as they were, and nobody has to
/// push them.
pub async fn waiting_jobs_wait_again_in_their_order(reopen: &Reopen) {
    let before = reopen();
    let mut jobs = Vec::new();
    for at in 0..20 {
        let job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        insert(&*before.store, job.clone()).await;
        let pushed = before.queue.push(QueueEntry::of(&job)).await;
        pushed.expect("pushed");
        jobs.push(job);
    }
    let after = reopen();
    let claims = claims(&after).await;
    let ids: Vec<JobId> = claims.iter().map(Claim::job).collect();
    let expected: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids, expected);
    for job in jobs {
        assert_eq!(get(&after, job.id).await, job);
    }
    assert!(after.store.keeps_jobs());
}

/// A job that was stored and not pushed yet is not lost either.
pub async fn a_job_that_was_not_pushed_is_queued(reopen: &Reopen) {
    let id = inserted(&*reopen().store).await;
    let claims = claims(&reopen()).await;
    assert_eq!(claims.iter().map(Claim::job).collect::<Vec<_>>(), [id]);
}

/// An attempt that ended with its process is held against the job, one that was put back is not, and neither can speak any
/// more.
pub async fn a_crash_is_counted_and_its_attempt_is_fenced(reopen: &Reopen) {
    let before = reopen();
    let (crashed, put_back) = (inserted(&*before.store).await, inserted(&*before.store).await);
    for id in [crashed, put_back] {
        start(&before, id, 0).await;
    }
    let transition = Transition::PutBack { attempt: 1 };
    let put = before.store.transition(put_back, transition).await;
    put.expect("running");
    let after = reopen();
    for (id, crashes) in [(crashed, 1), (put_back, 0)] {
        let job = get(&after, id).await;
        assert_eq!(
            (job.state, job.attempt, job.crashes, job.faults),
            (JobState::Queued, 1, crashes, 0)
        );
    }
    let counts = after.store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (2, 0));
    let job = start(&after, crashed, 1).await;
    assert_eq!((job.attempt, job.crashes), (2, 1));
    let late = Transition::Succeed {
        attempt: 1,
        images: vec![sample_image(crashed)],
        began_at: None,
    };
    expect_refusal(after.store.transition(crashed, late).await, Refusal::StaleAttempt);
    // Opened again, it is counted once more, and an attempt that never began is not.
    assert_eq!(get(&reopen(), crashed).await.crashes, 2);
    assert_eq!(get(&reopen(), crashed).await.crashes, 2);
}

/// An end outlives the process, with everything that belongs to it.
pub async fn an_ended_job_is_found_again(reopen: &Reopen) {
    let before = reopen();
    let id = inserted(&*before.store).await;
    start(&before, id, 0).await;
    let succeed = Transition::Succeed {
        attempt: 1,
        images: vec![sample_image(id)],
        began_at: None,
    };
    let ended = before.store.transition(id, succeed).await.expect("running");
    let after = reopen();
    assert_eq!(get(&after, id).await, ended);
    let waited = after.store.wait_until_ended(id).await;
    assert_eq!(waited.expect("it has ended"), ended);
    assert!(claims(&after).await.is_empty());
    let cancel = after.store.transition(id, Transition::Cancel).await;
    expect_refusal(cancel, Refusal::Ended);
    let listed = after.store.list(&JobFilter::default()).await;
    assert_eq!(listed.expect("readable"), [ended]);
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33);
    assert_eq!(after.store.expire(later).await.expect("writable"), [id]);
    let gone = reopen().store.get(id).await;
    assert_eq!(gone.expect("readable"), None);
}

/// With a bound of two: jobs that are found have their places, and give them back.
pub async fn found_jobs_have_their_places(reopen: &Reopen) {
    let before = reopen();
    let first = inserted(&*before.store).await;
    inserted(&*before.store).await;
    let after = reopen();
    let owner = ApiKeyId::anonymous();
    let full = after.store.reserve(&owner);
    assert!(matches!(full, Err(JobsError::Full { limit: 2 })), "{full:?}");
    let cancelled = after.store.transition(first, Transition::Cancel).await;
    cancelled.expect("queued");
    assert!(after.store.reserve(&owner).is_ok());
}

/// Nobody can run it, and nobody else can say what became of its images.
pub async fn a_job_without_its_images_is_not_queued(reopen: &Reopen) {
    let job = Job {
        state: JobState::Fetching,
        ..sample_job(JobId::new(), SystemTime::UNIX_EPOCH)
    };
    let id = job.id;
    insert(&*reopen().store, job).await;
    let after = reopen();
    assert!(claims(&after).await.is_empty());
    assert_eq!(get(&after, id).await.state, JobState::Fetching);
}

/// A rest before the next attempt is not shortened by a start.
pub async fn a_resting_job_rests_on(reopen: &Reopen) {
    let before = reopen();
    let id = inserted(&*before.store).await;
    let started_at = start(&before, id, 0).await.started_at.expect("it runs");
    let requeue = Transition::Requeue {
        attempt: 1,
        not_before: Some(started_at + 10 * LEASE),
    };
    let requeued = before.store.transition(id, requeue).await;
    requeued.expect("running");
    let after = reopen();
    assert!(claims(&after).await.is_empty());
    after.pass(10 * LEASE).await;
    assert_eq!(claims(&after).await.len(), 1);
}

/// A webhook that is being sent when the process is killed is sent again under its id; one that was taken is not.
pub async fn webhooks_outlive_the_process(reopen: &Reopen) {
    let before = reopen();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
        job.delivery.webhook = Some("https://a.example/hook".to_owned());
        ids.push(job.id);
        insert(&*before.store, job.clone()).await;
        let ended = before.store.transition(job.id, Transition::Cancel).await;
        ended.expect("queued");
    }
    let settle = async |fixture: &Fixture, settlement: Settlement| {
        let webhook = fixture
            .outbox
            .take(LEASE, &SendingTurn::default())
            .await
            .expect("it is due");
        let settled = fixture
            .outbox
            .settle(webhook.id, webhook.sendings, settlement)
            .await;
        settled.expect("the latest")
    };
    let delivered = settle(&before, Settlement::Delivered).await;
    let later = Settlement::Again {
        due: before.clock.wall() + 10 * LEASE,
        problem: "it did not answer".to_owned(),
    };
    let failed = settle(&before, later).await;
    let sending = before
        .outbox
        .take(LEASE, &SendingTurn::default())
        .await
        .expect("it is due");
    let after = reopen();
    let again = after
        .outbox
        .take(LEASE, &SendingTurn::default())
        .await
        .expect("it is due");
    assert_eq!(
        again.id, sending.id,
        "its sender is gone, and need not be waited for"
    );
    let next = tokio::time::timeout(A_MOMENT, after.outbox.take(LEASE, &SendingTurn::default())).await;
    assert!(next.is_err(), "{next:?}");
    let kept = after
        .outbox
        .webhooks(&OutboxFilter::default())
        .await
        .expect("readable");
    assert!(kept.contains(&delivered) && kept.contains(&failed), "{kept:?}");
    assert_eq!(kept.len(), 3);
    let failed_id = failed.id;
    after.pass(10 * LEASE).await;
    let mut due = vec![
        after
            .outbox
            .take(LEASE, &SendingTurn::default())
            .await
            .expect("it is due"),
    ];
    due.push(
        after
            .outbox
            .take(LEASE, &SendingTurn::default())
            .await
            .expect("it is due"),
    );
    let failed = due.iter().find(|webhook| webhook.id == failed_id);
    let failed = failed.expect("it is due as well");
    assert_eq!((failed.sendings, failed.in_round), (2, 2), "the schedule goes on");
}

/// A caller's key and a dialect's number still lead to the job.
pub async fn names_of_jobs_outlive_the_process(reopen: &Reopen) {
    let before = reopen();
    let mut job = sample_job(JobId::new(), before.clock.wall());
    job.idempotency = Some(Idempotency {
        key: "once".to_owned(),
        digest: "d".to_owned(),
    });
    job.dialect.number = Some((1 << 53) - 1);
    insert(&*before.store, job.clone()).await;
    let after = reopen();
    let found = after.store.find_by_key(&job.owner, "once").await;
    assert_eq!(found.expect("readable").map(|job| job.id), Some(job.id));
    let found = after.store.find_by_number(&job.dialect.name, (1 << 53) - 1).await;
    assert_eq!(found.expect("readable").map(|job| job.id), Some(job.id));
    let twin = Job {
        id: JobId::new(),
        ..job.clone()
    };
    let place = after.store.reserve(&twin.owner).expect("a free place");
    let inserted = after.store.insert(twin, place).await;
    assert_eq!(inserted.expect("the same request"), Inserted::Known(job.id));
    // A failure that may pass gives the key back, for every later start too.
    let failure = JobFailure {
        kind: ErrorKind::Unavailable,
        message: "a fault".to_owned(),
    };
    let fail = Transition::Fail { attempt: 0, failure };
    after.store.transition(job.id, fail).await.expect("queued");
    let found = reopen().store.find_by_key(&job.owner, "once").await;
    assert_eq!(found.expect("readable"), None);
}
