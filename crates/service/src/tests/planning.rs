//! What submit says of the run before anything is stored, and how long it is expected to take.

use pentimento_types::{ErrorKind, HasKind as _, NoiseSpacing, SchedulerChoice, SchedulerKind};

use super::*;
use crate::image_codec::read_metadata;

#[tokio::test]
async fn what_no_run_can_do_is_refused_before_anything_is_stored() {
    let test = TestService::start(FakeExecutor::new());
    let mut request = sample_request("x");
    request.recipe.scheduler.kind = Some(SchedulerKind::LCM);
    request.recipe.steps = 50;
    run(&test.service, request.clone()).await;
    request.recipe.steps = 51;
    let refused = submit(&test.service, request).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let ServiceError::RunRefused { setting, problem } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(setting, "steps");
    assert!(problem.contains("51") && problem.contains("50"), "{problem}");
    assert_eq!(stored_inputs(&test).await, 0);
    assert_eq!(test.service.status().await.jobs.queued, 0);
}

#[tokio::test]
async fn job_and_picture_name_what_the_checkpoint_decides() {
    let test = TestService::start(FakeExecutor::new());
    let mut request = sample_request("x");
    // The demo checkpoint's own is PNDM, for which Karras' levels mean nothing.
    request.recipe.scheduler = SchedulerChoice {
        kind: None,
        spacing: NoiseSpacing::Karras,
        ..SchedulerChoice::default()
    };
    let job = run(&test.service, request.clone()).await;
    assert_eq!(
        (job.recipe.scheduler.kind, job.recipe.scheduler.spacing),
        (Some(SchedulerKind::PNDM), NoiseSpacing::Checkpoint)
    );
    let image = &crate::finished_images(&job).unwrap()[0];
    let metadata = read_metadata(&test.service.picture(image).await.unwrap()).unwrap();
    assert_eq!(
        (metadata.scheduler.as_deref(), metadata.karras),
        (Some("PNDMScheduler"), false)
    );
    assert!(metadata.parameters_text().contains("Sampler: PNDMScheduler,"));
    request.recipe.scheduler.kind = Some(SchedulerKind::UniPCMultistep);
    let job = run(&test.service, request).await;
    assert_eq!(job.recipe.scheduler.spacing, NoiseSpacing::Karras);
}

#[tokio::test]
async fn the_time_left_is_told_of_jobs_that_wait_and_run() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    assert_eq!(test.service.queue_time(), Duration::ZERO);
    let first = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let second = submit(&test.service, sample_request("x")).await.unwrap();
    let left = |id| test.service.time_left(id).unwrap();
    assert!(left(first) > Duration::ZERO && left(second) > left(first));
    assert!(test.service.queue_time() >= left(second));
    drop(held);
    for id in [first, second] {
        in_time(test.service.wait(id)).await.unwrap();
    }
    // The end of a job is told before the worker has done with it.
    eventually(async || test.service.time_left(second).is_none() && test.service.queue_time().is_zero())
        .await;
    // Another device, so that the job cannot end before it is cancelled.
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let third = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    test.service.cancel(third).await.unwrap();
    assert_eq!(test.service.time_left(third), None);
}
