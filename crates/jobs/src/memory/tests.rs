//! What is particular to this store: that what it remembers is bounded.

use std::time::Duration;

use async_trait::async_trait;
use std::time::{Instant, SystemTime};

use pentimento_types::{Idempotency, JobState, ManualClock};

use super::*;
use crate::conformance::{self, Fixture, sample_job};
use crate::{Inserted, JobFilter, JobStore, KEY_LIFE, Outbox, SendingTurn, Settlement, Transition};

fn memory(clock: &ManualClock, limits: JobLimits) -> MemoryJobs {
    MemoryJobs::new(Arc::new(clock.clone()), limits)
}

#[tokio::test]
async fn passes_the_conformance_suite() {
    conformance::run_all(|unfinished| {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let jobs = memory(&clock, JobLimits::in_number(unfinished, 1000));
        Fixture::new(jobs.clone(), jobs.queue(), &clock)
    })
    .await;
}

/// Its clock on the wall is set forward by itself, too.
#[derive(Clone, Debug)]
pub(crate) struct Jumping {
    time: ManualClock,
    ahead: Arc<Mutex<Duration>>,
}

impl Jumping {
    pub(crate) fn new(time: ManualClock) -> Self {
        let ahead = Arc::default();
        Self { time, ahead }
    }

    pub(crate) fn set_forward(&self, by: Duration) {
        *self.ahead.lock().unwrap() += by;
    }
}

#[async_trait]
impl Clock for Jumping {
    fn now(&self) -> Instant {
        self.time.now()
    }

    fn wall(&self) -> SystemTime {
        self.time.wall() + *self.ahead.lock().unwrap()
    }

    async fn sleep_until(&self, deadline: Instant) {
        self.time.sleep_until(deadline).await;
    }
}

/// Neither keys nor the leases of webhooks end because a machine has learnt what time it is.
pub(crate) async fn outlives_a_jump(clock: &Jumping, jobs: &(impl JobStore + Outbox)) {
    let request = Idempotency {
        key: "once".to_owned(),
        digest: "d".to_owned(),
    };
    let mut job = sample_job(JobId::new(), clock.wall());
    job.idempotency = Some(request.clone());
    job.delivery.webhook = Some("https://a.example/".to_owned());
    let place = jobs.reserve(&job.owner).unwrap();
    jobs.insert(job.clone(), place).await.unwrap();
    jobs.transition(job.id, Transition::Cancel).await.unwrap();
    let turn = SendingTurn::default();
    let lease = Duration::from_secs(90);
    jobs.take(lease, &turn).await.unwrap();
    clock.set_forward(Duration::from_secs(48 * 3600));
    let twin = Job {
        id: JobId::new(),
        ..job.clone()
    };
    let place = jobs.reserve(&job.owner).unwrap();
    assert_eq!(jobs.insert(twin, place).await.unwrap(), Inserted::Known(job.id));
    let found = jobs.find_by_key(&job.owner, &request.key).await.unwrap();
    assert_eq!(found.unwrap().id, job.id);
    let taking = tokio::time::timeout(Duration::from_millis(30), jobs.take(lease, &turn)).await;
    assert!(taking.is_err(), "it is being sent: {taking:?}");
    clock.time.advance(lease);
    jobs.take(lease, &turn).await.unwrap();
    // It is believed in the end.
    clock.time.advance(KEY_LIFE);
    assert!(
        jobs.find_by_key(&job.owner, &request.key)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_clock_on_the_wall_that_is_set_forward_ends_nothing() {
    let clock = Jumping::new(ManualClock::new(
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
    ));
    let limits = JobLimits::in_number(9, 9);
    outlives_a_jump(&clock, &MemoryJobs::new(Arc::new(clock.clone()), limits)).await;
}

#[tokio::test]
async fn the_oldest_ended_job_is_forgotten_and_its_waiter_still_gets_it() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let jobs = memory(&clock, JobLimits::in_number(9, 2));
    let ids: Vec<JobId> = (1..=3).map(JobId::from_u128).collect();
    for id in &ids {
        let place = jobs.reserve(&ApiKeyId::anonymous()).unwrap();
        jobs.insert(sample_job(*id, clock.wall()), place).await.unwrap();
    }
    let first = ids[0];
    let other = jobs.clone();
    let waiting = tokio::spawn(async move { other.wait_until_ended(first).await });
    tokio::task::yield_now().await;
    for id in &ids {
        jobs.transition(*id, Transition::Cancel).await.unwrap();
    }
    assert!(jobs.get(first).await.unwrap().is_none());
    assert_eq!(waiting.await.unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(jobs.list(&JobFilter::default()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn ended_jobs_are_bounded_in_bytes_and_give_them_back() {
    const BYTES: u64 = 1 << 20;
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let jobs = memory(
        &clock,
        JobLimits {
            unfinished: 9,
            finished: usize::MAX,
            finished_bytes: BYTES,
        },
    );
    let end = async |id: u128, prompt: String| {
        let mut job = sample_job(JobId::from_u128(id), clock.wall());
        job.recipe.prompt = prompt;
        let place = jobs.reserve(&job.owner).unwrap();
        jobs.insert(job, place).await.unwrap();
        jobs.transition(JobId::from_u128(id), Transition::Cancel)
            .await
            .unwrap();
    };
    for id in 1..=100 {
        end(id, "🎨".repeat(25_000)).await;
    }
    let kept = jobs.list(&JobFilter::default()).await.unwrap();
    assert_eq!(kept.len(), 10, "each takes 100 kB and a little");
    assert!(kept.iter().all(|job| job.id > JobId::from_u128(90)));
    // One that is larger than all of it is forgotten at once, with all others.
    end(101, "x".repeat(2 << 20)).await;
    assert!(jobs.list(&JobFilter::default()).await.unwrap().is_empty());
    assert_eq!(jobs.lock().finished_bytes, 0);
    end(102, "small".to_owned()).await;
    assert!(jobs.lock().finished_bytes > 0);
    clock.advance(Duration::from_secs(100));
    jobs.expire(clock.wall()).await.unwrap();
    assert_eq!(jobs.lock().finished_bytes, 0);
    assert!(jobs.lock().finished.is_empty());
}

#[tokio::test]
async fn jobs_whose_webhooks_are_under_way_are_forgotten_last() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let jobs = memory(&clock, JobLimits::in_number(9, 2));
    let end = async |id: u128, webhook: Option<&str>| {
        let id = JobId::from_u128(id);
        let mut job = sample_job(id, clock.wall());
        job.delivery.webhook = webhook.map(str::to_owned);
        let place = jobs.reserve(&job.owner).unwrap();
        jobs.insert(job, place).await.unwrap();
        jobs.transition(id, Transition::Cancel).await.unwrap();
    };
    let kept = async || -> Vec<u128> {
        let kept = jobs.list(&JobFilter::default()).await.unwrap();
        kept.iter().map(|job| job.id.as_uuid().as_u128()).collect()
    };
    let receiver = Some("https://dead.example/");
    end(1, receiver).await;
    end(2, None).await;
    end(3, None).await;
    assert_eq!(kept().await, [1, 3]);
    end(4, receiver).await;
    assert_eq!(kept().await, [1, 4]);
    end(5, receiver).await;
    assert_eq!(kept().await, [4, 5], "bounded all the same");
    assert_eq!(jobs.lock().outbox.len(), 2);
    let sent = jobs
        .take(Duration::from_secs(60), &SendingTurn::default())
        .await
        .unwrap();
    assert_eq!(sent.job(), JobId::from_u128(4));
    jobs.settle(sent.id, sent.sendings, Settlement::Delivered)
        .await
        .unwrap();
    end(6, None).await;
    assert_eq!(kept().await, [5, 6]);
}
