//! What every job queue must do.

use std::sync::Arc;
use std::time::Duration;

use pentimento_types::{ApiKeyId, JobId};

use super::fixture::{A_MOMENT, Fixture, LEASE, entry, expect_lost};
use crate::{Claim, JobQueue, QueueEntry};

async fn nothing_to_claim(queue: &dyn JobQueue) {
    let claim = tokio::time::timeout(A_MOMENT, queue.claim(LEASE, &[])).await;
    assert!(claim.is_err(), "expected an empty queue, found {claim:?}");
}

async fn claimed(queue: &dyn JobQueue) -> Claim {
    tokio::time::timeout(Duration::from_secs(10), queue.claim(LEASE, &[]))
        .await
        .expect("a job is ready")
        .expect("claimable")
}

/// Lets time pass until there is a job. A worker whose lease is over may get a last call before its job goes to another.
async fn claimed_in_time(fixture: &Fixture) -> Claim {
    for _ in 0..4 {
        let claim = tokio::time::timeout(A_MOMENT, fixture.queue.claim(LEASE, &[])).await;
        if let Ok(claim) = claim {
            return claim.expect("claimable");
        }
        fixture.pass(LEASE / 3).await;
    }
    claimed(&*fixture.queue).await
}

/// Of one owner: first in, first out, each to one worker.
pub async fn claims_come_in_order_and_once(queue: &dyn JobQueue) {
    let ids = [JobId::new(), JobId::new(), JobId::new()];
    for id in ids {
        queue.push(entry(id)).await.expect("pushed");
    }
    for id in ids {
        let claim = claimed(queue).await;
        assert_eq!(claim.job(), id);
        if id != ids[2] {
            queue.complete(claim).await.expect("held");
        }
    }
    nothing_to_claim(queue).await;
}

/// One owner's three jobs of work 4, another's five of work 2: the first owner gets no more work done than the second.
pub async fn owners_take_turns_by_their_work(queue: &dyn JobQueue) {
    let owners = [("large", 3, 4), ("small", 5, 2)].map(|(owner, jobs, work)| {
        let entry = |_| QueueEntry {
            owner: ApiKeyId::new(owner),
            work,
            ..entry(JobId::new())
        };
        (0..jobs).map(entry).collect::<Vec<_>>()
    });
    for entry in owners.iter().flatten() {
        queue.push(entry.clone()).await.expect("pushed");
    }
    let mut work = [0_u64; 2];
    for _ in 0..6 {
        let claim = claimed(queue).await;
        let is_claimed = |entry: &&QueueEntry| entry.id == claim.job();
        for (work, entries) in work.iter_mut().zip(&owners) {
            *work += entries.iter().find(is_claimed).map_or(0, |entry| entry.work);
        }
        assert!(
            work[0].abs_diff(work[1]) <= 4,
            "more than one job apart: {work:?}"
        );
        queue.complete(claim).await.expect("held");
    }
}

/// Who asks for other owners' jobs waits until there is one, and the others are not lost.
pub async fn the_jobs_of_some_owners_are_left(fixture: &Fixture) {
    let queue = Arc::clone(&fixture.queue);
    let (left, wanted) = (JobId::new(), JobId::new());
    queue.push(entry(left)).await.expect("pushed");
    let claiming = tokio::spawn(async move { queue.claim(LEASE, &[ApiKeyId::anonymous()]).await });
    tokio::time::sleep(A_MOMENT).await;
    assert!(!claiming.is_finished());
    let other = QueueEntry {
        owner: ApiKeyId::new("other"),
        ..entry(wanted)
    };
    fixture.queue.push(other).await.expect("pushed");
    let claim = claiming.await.expect("no panic").expect("claimable");
    assert_eq!(claim.job(), wanted);
    assert_eq!(claimed(&*fixture.queue).await.job(), left);
}

/// A worker that was there first is woken.
pub async fn a_waiting_worker_gets_a_pushed_job(fixture: &Fixture) {
    let queue = Arc::clone(&fixture.queue);
    let worker = tokio::spawn(async move { claimed(&*queue).await });
    tokio::time::sleep(A_MOMENT).await;
    let id = JobId::new();
    fixture.queue.push(entry(id)).await.expect("pushed");
    assert_eq!(worker.await.expect("no panic").job(), id);
}

/// Pushing twice, also while claimed, makes no second entry.
pub async fn an_entry_is_there_once(queue: &dyn JobQueue) {
    let id = JobId::new();
    queue.push(entry(id)).await.expect("pushed");
    queue.push(entry(id)).await.expect("pushed");
    let claim = claimed(queue).await;
    queue.push(entry(id)).await.expect("pushed");
    nothing_to_claim(queue).await;
    queue.complete(claim).await.expect("held");
    nothing_to_claim(queue).await;
    queue.push(entry(id)).await.expect("pushed");
    assert_eq!(claimed(queue).await.job(), id);
}

/// A given back job does not go to the end of the queue, and the old claim is worth nothing.
pub async fn a_released_job_comes_first(queue: &dyn JobQueue) {
    let (first, second) = (JobId::new(), JobId::new());
    queue.push(entry(first)).await.expect("pushed");
    queue.push(entry(second)).await.expect("pushed");
    let claim = claimed(queue).await;
    let old = Claim::new(claim.job(), claim.owner().clone(), claim.token());
    queue.release(claim, Duration::ZERO).await.expect("held");
    expect_lost(queue.heartbeat(&old, LEASE).await);
    let again = claimed(queue).await;
    assert_eq!(again.job(), first);
    assert_ne!(again.token(), old.token());
    expect_lost(queue.complete(old).await);
    queue.complete(again).await.expect("held");
    assert_eq!(claimed(queue).await.job(), second);
}

/// A job that is given back with a delay is nobody's until the delay is over; then a worker that waits is woken.
pub async fn a_job_released_for_later_rests_until_then(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let id = JobId::new();
    queue.push(entry(id)).await.expect("pushed");
    let claim = claimed(queue).await;
    queue.release(claim, LEASE).await.expect("held");
    queue.push(entry(id)).await.expect("already there");
    nothing_to_claim(queue).await;
    let waiting = Arc::clone(&fixture.queue);
    let worker = tokio::spawn(async move { claimed(&*waiting).await });
    tokio::time::sleep(A_MOMENT).await;
    fixture.pass(LEASE).await;
    assert_eq!(worker.await.expect("no panic").job(), id);
}

/// A cancelled job need not be claimed; a claimed one is not touched by `forget`.
pub async fn a_forgotten_job_is_not_claimed(queue: &dyn JobQueue) {
    let (gone, kept) = (JobId::new(), JobId::new());
    queue.push(entry(kept)).await.expect("pushed");
    let claim = claimed(queue).await;
    queue.push(entry(gone)).await.expect("pushed");
    let waiting = JobId::new();
    queue.push(entry(waiting)).await.expect("pushed");
    queue.forget(gone).await.expect("known or not");
    let other = claimed(queue).await;
    assert_eq!(other.job(), waiting, "only one job is forgotten");
    queue.complete(other).await.expect("held");
    queue.forget(kept).await.expect("known or not");
    queue.forget(JobId::new()).await.expect("known or not");
    nothing_to_claim(queue).await;
    queue.complete(claim).await.expect("still held");
}

/// Some time after the lease the job goes to another worker, and the first worker can do nothing with it.
pub async fn a_silent_worker_loses_its_job(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let (lost, other) = (JobId::new(), JobId::new());
    queue.push(entry(lost)).await.expect("pushed");
    let silent = claimed(queue).await;
    queue.push(entry(other)).await.expect("pushed");
    fixture.pass(LEASE).await;
    let (one, two) = (claimed_in_time(fixture).await, claimed_in_time(fixture).await);
    expect_lost(queue.heartbeat(&silent, LEASE).await);
    expect_lost(queue.complete(silent).await);
    let mut jobs = [one.job(), two.job()];
    jobs.sort_unstable();
    assert_eq!(jobs, [lost, other], "ids sort by the time of their making");
    for claim in [one, two] {
        queue.complete(claim).await.expect("held");
    }
    nothing_to_claim(queue).await;
}

/// A process that was stopped, with its worker and with those who wait for its job, goes on where it was: a lease that is
/// over is lost to another holder only. Were it lost by the clock, the job would be run twice.
pub async fn a_worker_that_was_stopped_keeps_its_job(fixture: &Fixture) {
    let queue = &*fixture.queue;
    queue.push(entry(JobId::new())).await.expect("pushed");
    let claim = claimed(queue).await;
    let waiting = Arc::clone(&fixture.queue);
    let worker = tokio::spawn(async move { waiting.claim(LEASE, &[]).await });
    tokio::time::sleep(A_MOMENT).await;
    for _ in 0..3 {
        fixture.pass(LEASE + LEASE / 2).await;
        // The one who waits is woken first.
        tokio::time::sleep(A_MOMENT).await;
        queue.heartbeat(&claim, LEASE).await.expect("nobody has taken it");
    }
    assert!(!worker.is_finished());
    queue.complete(claim).await.expect("held");
    worker.abort();
}

/// A lease is extended as often as its worker asks in time.
pub async fn a_heartbeat_keeps_the_job(fixture: &Fixture) {
    let queue = &*fixture.queue;
    queue.push(entry(JobId::new())).await.expect("pushed");
    let claim = claimed(queue).await;
    for _ in 0..5 {
        fixture.pass(LEASE / 2).await;
        queue.heartbeat(&claim, LEASE).await.expect("held");
    }
    nothing_to_claim(queue).await;
    queue.complete(claim).await.expect("held");
}

/// A worker that began to wait before the lease was given out is woken when it runs out.
pub async fn a_lost_lease_wakes_a_worker_that_waited_before(fixture: &Fixture) {
    let id = JobId::new();
    let wait = || {
        let queue = Arc::clone(&fixture.queue);
        tokio::spawn(async move { claimed(&*queue).await })
    };
    let (one, two) = (wait(), wait());
    tokio::time::sleep(A_MOMENT).await;
    fixture.queue.push(entry(id)).await.expect("pushed");
    let finished = || usize::from(one.is_finished()) + usize::from(two.is_finished());
    for _ in 0..1000 {
        if finished() > 0 {
            break;
        }
        tokio::time::sleep(A_MOMENT / 3).await;
    }
    assert_eq!(finished(), 1);
    for part in [LEASE, LEASE / 3] {
        fixture.pass(part).await;
        tokio::time::sleep(A_MOMENT).await;
    }
    let (one, two) = (one.await.expect("no panic"), two.await.expect("no panic"));
    assert_eq!((one.job(), two.job()), (id, id));
    assert_ne!(one.token(), two.token());
}
