//! A machine of a cluster, as far as the use cases know of others.

use std::sync::atomic::Ordering;

use pentimento_jobs::QueueEntry;
use pentimento_types::{Clock as _, ImageKey, InputRole, JobState, ModelId, SystemClock};

use super::troubled_store::TroubledStore;
use super::*;
use crate::{ServiceConfig, ServiceParts, maintenance};

#[tokio::test]
async fn a_job_whose_models_are_elsewhere_is_put_back_and_costs_no_attempt() {
    let idle = TestConfig {
        service: ServiceConfig {
            runs_jobs: false,
            ..TestConfig::default().service
        },
        ..TestConfig::default()
    };
    let test = TestService::start_with(FakeExecutor::new(), idle);
    let parts = ServiceParts {
        nodes: Some(Arc::new(Unheard)),
        ..test.parts.clone()
    };
    let _worker = Service::start(parts, TestConfig::default().service);
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.not_before = None;
    job.recipe.vae = Some(ModelId::new("only on the other machine"));
    let (id, entry) = (job.id, QueueEntry::of(&job));
    let place = test.parts.store.reserve(&job.owner).unwrap();
    test.parts.store.insert(job, place).await.unwrap();
    test.parts.queue.push(entry).await.unwrap();
    let read = async || test.parts.store.get(id).await.unwrap().unwrap();
    eventually(async || {
        let job = read().await;
        job.attempt > 0 && job.state != JobState::Running
    })
    .await;
    let job = read().await;
    assert_eq!((job.state, job.attempt, job.faults), (JobState::Queued, 1, 0));
}

/// A machine that is cut off from the broker, and not from the pictures, works on jobs that no other one knows.
#[tokio::test]
async fn inputs_are_deleted_by_the_machine_that_accepted_their_job_or_when_it_is_lost_for_good() {
    // Objects get the time of the operating system, so the service's clock starts there.
    let clock = ManualClock::new(SystemClock.wall());
    let config = TestConfig {
        clock: Arc::new(clock.clone()),
        ..TestConfig::default()
    };
    let lost_after = config.service.lost_after();
    let (store, test) = TroubledStore::start_with(FakeExecutor::new(), config);
    store.is_shared.store(true, Ordering::Relaxed);
    store.ends_are_others.store(true, Ordering::Relaxed);
    let job = run(&test.service, sample_request("accepted by another machine")).await;
    let unheard = ImageKey::input(JobId::from_u128(5), InputRole::Init);
    test.parts
        .images
        .put(&unheard, Bytes::from_static(b"of a job that nobody here knows"))
        .await
        .unwrap();
    let look = async || {
        maintenance::sweep_orphans(&test.service.inner).await.unwrap();
        stored_inputs(&test).await
    };
    clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(look().await, 2, "they may be wanted where they were accepted");
    store.ends_are_others.store(false, Ordering::Relaxed);
    eventually(async || {
        // As for a job that was accepted here and has run elsewhere; again, since the attempt may not be quite over.
        test.service.inner.progress.expect_found(&job);
        test.service.heard_of(&job);
        stored_inputs(&test).await == 1
    })
    .await;
    clock.advance(lost_after - Duration::from_secs(2 * 3600 + 60));
    assert_eq!(look().await, 1);
    clock.advance(Duration::from_secs(120));
    assert_eq!(look().await, 0, "no machine would begin such a job any more");
}
