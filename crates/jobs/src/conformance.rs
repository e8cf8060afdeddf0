//! What every job store and queue must do, as test functions that any implementation can run.
//!
//! Each function takes a fresh [`Fixture`]; a broken promise is a panic that says which one. Nothing is asked that a
//! broker in another process cannot give: time passes as the implementation's own clock has it, and jobs whose leases
//! ran out come back in no promised order.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, ErrorKind, Findings, ImageFormat, ImageKey, InputRole, Inputs, Job,
    JobFailure, JobId, JobNote, JobOutcome, JobState, ModelId, Priority, Recipe, SchedulerChoice, Size,
    StoredImage,
};

use crate::{Claim, JobCounts, JobFilter, JobQueue, JobStore, JobsError, QueueEntry, Refusal, Transition};

/// Lets so much of an implementation's time pass: moves its clock, or sleeps.
pub type LetPass = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An implementation under test, empty.
#[derive(Clone)]
pub struct Fixture {
    /// Records.
    pub store: Arc<dyn JobStore>,
    /// Queue.
    pub queue: Arc<dyn JobQueue>,
    /// How time passes for both.
    pub let_pass: LetPass,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Fixture {
    async fn pass(&self, time: Duration) {
        (self.let_pass)(time).await;
    }
}

/// Short enough to be waited for with a real clock, long enough not to run out by itself.
const LEASE: Duration = Duration::from_secs(2);
/// Long enough for a woken task to run, short enough for a suite; only the absence of an event is waited for.
const A_MOMENT: Duration = Duration::from_millis(30);

/// Runs every check, each on a fresh fixture. `make` takes the bound on unfinished jobs.
pub async fn run_all(make: impl Fn(usize) -> Fixture) {
    a_stored_job_is_read_back_whole(&*make(10).store).await;
    an_id_is_taken_once(&*make(10).store).await;
    unknown_jobs_are_not_found(&*make(10).store).await;
    jobs_beyond_the_bound_are_refused(&*make(2).store).await;
    a_place_counts_from_its_reservation(&*make(1).store).await;
    one_owner_leaves_places_for_others(&*make(8).store).await;
    a_life_goes_through_its_states(&make(10)).await;
    a_job_whose_images_are_fetched_has_its_place(&*make(1).store).await;
    a_final_state_stays(&*make(10).store).await;
    one_of_two_racing_changes_wins(&make(10)).await;
    a_waiter_is_told_of_the_end(&make(10)).await;
    lists_are_filtered_and_paged(&*make(10).store).await;
    old_ends_expire(&make(10)).await;
    claims_come_in_order_and_once(&*make(10).queue).await;
    owners_take_turns_by_their_work(&*make(10).queue).await;
    the_jobs_of_some_owners_are_left(&make(10)).await;
    a_waiting_worker_gets_a_pushed_job(&make(10)).await;
    an_entry_is_there_once(&*make(10).queue).await;
    a_released_job_comes_first(&*make(10).queue).await;
    a_job_released_for_later_rests_until_then(&make(10)).await;
    a_forgotten_job_is_not_claimed(&*make(10).queue).await;
    a_silent_worker_loses_its_job(&make(10)).await;
    a_heartbeat_keeps_the_job(&make(10)).await;
    a_lost_lease_wakes_a_worker_that_waited_before(&make(10)).await;
}

/// A job as a dialect would make it, queued.
#[must_use]
pub fn sample_job(id: JobId, created_at: SystemTime) -> Job {
    let recipe = Recipe {
        model: ModelId::new("demo"),
        vae: None,
        loras: Vec::new(),
        embeddings: Vec::new(),
        prompt: "a red house".to_owned(),
        negative_prompt: String::new(),
        image_count: 1,
        steps: 4,
        strength: 0.6,
        guidance_scale: 7.5,
        seed: 7,
        clip_skip: 1,
        token_merging: true,
        scheduler: SchedulerChoice::default(),
        soft_edge: 0,
    };
    let inputs = Inputs::new(ImageKey::input(id, InputRole::Init));
    Job {
        owner: ApiKeyId::anonymous(),
        dialect: DialectTag {
            name: "novita".to_owned(),
            note: Some("{\"number\": 7}".to_owned()),
        },
        delivery: Delivery {
            file_stem: "lcm_img2img".to_owned(),
            link_life: Some(Duration::from_secs(3600)),
            ..Delivery::default()
        },
        notes: vec![JobNote::MaskIsAlpha],
        priority: Priority::High,
        idempotency_key: Some("once".to_owned()),
        deadline: Some(created_at + Duration::from_secs(600)),
        not_before: Some(created_at + Duration::from_secs(1)),
        ..Job::queued(id, created_at, recipe, inputs)
    }
}

fn sample_image(id: JobId) -> StoredImage {
    StoredImage {
        key: ImageKey::output("lcm_img2img", id, 0, "png"),
        format: ImageFormat::Png,
        size: Size { width: 8, height: 8 },
        seed: 7,
        findings: Findings { nsfw: Some(false) },
    }
}

async fn inserted(store: &dyn JobStore) -> JobId {
    let id = JobId::new();
    insert(store, sample_job(id, SystemTime::UNIX_EPOCH)).await;
    id
}

async fn insert(store: &dyn JobStore, job: Job) {
    let place = store.reserve(&job.owner).expect("a free place");
    store.insert(job, place).await.expect("a new job is taken");
}

/// An entry for one unit of work.
fn entry(id: JobId) -> QueueEntry {
    QueueEntry {
        id,
        owner: ApiKeyId::anonymous(),
        priority: Priority::Normal,
        work: 1,
    }
}

fn expect_refusal<T: std::fmt::Debug>(result: Result<T, JobsError>, reason: Refusal) {
    assert!(
        matches!(&result, Err(JobsError::Refused(refused)) if refused.reason == reason),
        "expected a refusal ({reason:?}), found {result:?}"
    );
}

fn expect_lost<T: std::fmt::Debug>(result: Result<T, JobsError>) {
    assert!(
        matches!(result, Err(JobsError::ClaimLost { .. })),
        "expected a lost claim, found {result:?}"
    );
}

/// What went in comes out.
pub async fn a_stored_job_is_read_back_whole(store: &dyn JobStore) {
    let job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH + Duration::from_secs(77));
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
    let place = store.reserve(&job.owner).expect("a free place");
    store.insert(job, place).await.expect("there is room");
    let counts = store.counts().await.expect("readable");
    assert_eq!((counts.queued, counts.running), (1, 0));
    let start = Transition::Start { attempt: 0 };
    let refused = store.transition(id, start.clone()).await.expect_err("no images");
    assert!(matches!(refused, JobsError::Refused(_)), "{refused:?}");
    let fetched = Transition::Fetched {
        notes: Vec::new(),
        work: 7,
    };
    let job = store.transition(id, fetched).await.expect("fetching");
    assert_eq!((job.state, job.work), (JobState::Queued, 7));
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
    assert_eq!(list(page).await, [ids[1], ids[2]]);
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

/// After the lease the job goes to another worker, and the first worker can do nothing with it.
pub async fn a_silent_worker_loses_its_job(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let (lost, other) = (JobId::new(), JobId::new());
    queue.push(entry(lost)).await.expect("pushed");
    let silent = claimed(queue).await;
    queue.push(entry(other)).await.expect("pushed");
    fixture.pass(LEASE).await;
    expect_lost(queue.heartbeat(&silent, LEASE).await);
    let (one, two) = (claimed(queue).await, claimed(queue).await);
    expect_lost(queue.complete(silent).await);
    let mut jobs = [one.job(), two.job()];
    jobs.sort_unstable();
    assert_eq!(jobs, [lost, other], "ids sort by the time of their making");
    for claim in [one, two] {
        queue.complete(claim).await.expect("held");
    }
    nothing_to_claim(queue).await;
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
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(usize::from(one.is_finished()) + usize::from(two.is_finished()), 1);
    fixture.pass(LEASE).await;
    let (one, two) = (one.await.expect("no panic"), two.await.expect("no panic"));
    assert_eq!((one.job(), two.job()), (id, id));
    assert_ne!(one.token(), two.token());
}
