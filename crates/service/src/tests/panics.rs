//! Panics outside of the guarded acts: in the worker, in the queue, on the device thread. A job always ends, and the
//! readiness says what is broken.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use pentimento_jobs::{Claim, JobLimits, JobQueue, JobsError, MemoryJobs, QueueEntry};
use pentimento_types::{ApiKeyId, Clock, JobState, SystemClock};

use super::*;
use crate::ServiceParts;

/// A queue that panics in the next claims and ends of claims.
#[derive(Debug)]
struct Troubled {
    queue: Arc<dyn JobQueue>,
    claims: AtomicU32,
    ends: AtomicU32,
}

fn strike(left: &AtomicU32) {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    assert!(taken.is_err(), "a panic that a test asked for");
}

#[async_trait::async_trait]
impl JobQueue for Troubled {
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        self.queue.push(entry).await
    }

    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        strike(&self.claims);
        self.queue.claim(lease, except).await
    }

    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError> {
        self.queue.heartbeat(claim, lease).await
    }

    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError> {
        self.queue.release(claim, delay).await
    }

    async fn complete(&self, claim: Claim) -> Result<(), JobsError> {
        strike(&self.ends);
        self.queue.complete(claim).await
    }

    async fn forget(&self, id: JobId) -> Result<(), JobsError> {
        self.queue.forget(id).await
    }
}

#[tokio::test]
async fn a_worker_that_panics_is_started_anew() {
    let test = TestService::start(FakeExecutor::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let limits = JobLimits::in_number(10, 10);
    let jobs = Arc::new(MemoryJobs::new(clock, limits));
    let parts = ServiceParts {
        queue: Arc::new(Troubled {
            queue: jobs.queue(),
            claims: AtomicU32::new(1),
            ends: AtomicU32::new(1),
        }),
        store: Arc::clone(&jobs) as Arc<_>,
        outbox: jobs,
        ..test.parts.clone()
    };
    let service = Service::start(parts, TestConfig::default().service);
    for prompt in ["its claim panics", "its end panics", "all is well"] {
        let job = run(&service, sample_request(prompt)).await;
        assert_eq!(job.state, JobState::Succeeded, "{prompt}");
    }
}

/// A clock that panics on the device thread once it is told to.
#[derive(Debug, Default)]
struct Broken(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Clock for Broken {
    fn now(&self) -> Instant {
        let on_device = std::thread::current().name() == Some("pentimento-device");
        assert!(
            !(on_device && self.0.load(Ordering::Relaxed)),
            "a panic that a test asked for"
        );
        SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        SystemClock.wall()
    }

    async fn sleep_until(&self, deadline: Instant) {
        SystemClock.sleep_until(deadline).await;
    }
}

#[tokio::test]
async fn without_its_device_thread_the_server_is_not_ready_and_jobs_end() {
    let broken = Arc::new(AtomicBool::new(false));
    let config = TestConfig {
        clock: Arc::new(Broken(Arc::clone(&broken))),
        ..TestConfig::default()
    };
    let (mut held, device) = Held::new();
    let test = TestService::start_with(device, config);
    let inside = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    assert!(test.service.status().await.ready);
    broken.store(true, Ordering::Relaxed);
    drop(held);
    let job = in_time(test.service.wait(inside)).await.unwrap();
    assert_eq!(job.state, JobState::Failed);
    let later = run(&test.service, sample_request("later")).await;
    assert_eq!(later.state, JobState::Failed);
    // The thread may still be ending.
    let is_told = async {
        while test.service.status().await.engine.healthy {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    in_time(is_told).await;
    assert!(!test.service.status().await.ready);
}
