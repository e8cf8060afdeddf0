//! A machine of a cluster, as far as the use cases know of others.

use pentimento_jobs::QueueEntry;
use pentimento_types::{Clock as _, JobState, ModelId, SystemClock};

use super::*;
use crate::{ServiceConfig, ServiceParts};

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
