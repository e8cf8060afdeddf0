//! Jobs that wait for room for their images, and what decoding may take.

use pentimento_jobs::Transition;
use pentimento_types::{InputRole, JobState, MemoryBudget, MemoryUse};

use super::*;
use crate::inputs::PendingInputs;

/// Bytes of the photo, decoded.
const PHOTO: u64 = 13 * 9 * 3;

fn with_room(images: u64, executor: FakeExecutor) -> TestService {
    let memory = MemoryBudget {
        images,
        ..MemoryBudget::UNBOUNDED
    };
    let config = TestConfig {
        memory,
        ..TestConfig::default()
    };
    TestService::start_with(executor, config)
}

/// The prompts of the jobs that were prepared, in order.
fn prepared(acts: &[SeenAct]) -> Vec<&str> {
    let prepares = acts.iter().filter_map(|act| match act {
        SeenAct::Prepare { prompt } => Some(prompt.as_str()),
        SeenAct::Denoise { .. } | SeenAct::Finish(_) => None,
    });
    prepares.collect()
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_waits_for_room_never_runs() {
    let (mut held, executor) = Held::new();
    let log = executor.recording();
    // One job with its result.
    let test = with_room(2 * PHOTO, executor);
    let first = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut waiting = Vec::new();
    for prompt in ["b", "c"] {
        let id = submit(&test.service, sample_request(prompt)).await.unwrap();
        eventually(async || test.service.fetch(id).await.unwrap().state == JobState::Running).await;
        waiting.push(id);
    }
    for id in waiting {
        // As another process would: neither the engine nor the inputs are touched.
        test.parts.store.transition(id, Transition::Cancel).await.unwrap();
    }
    drop(held);
    in_time(test.service.wait(first)).await.unwrap();
    let last = run(&test.service, sample_request("d")).await;
    assert_eq!(last.state, JobState::Succeeded);
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(prepared(&log.acts()), ["hold", "d"]);
}

#[tokio::test]
async fn small_images_do_not_pass_large_ones_that_wait_for_room() {
    let (mut held, executor) = Held::new();
    let log = executor.recording();
    let test = with_room(5 * PHOTO, executor);
    submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let mut large = sample_request("large");
    large.recipe.image_count = 4;
    let large = submit(&test.service, large).await.unwrap();
    eventually(async || test.service.fetch(large).await.unwrap().state == JobState::Running).await;
    let small = submit(&test.service, sample_request("small")).await.unwrap();
    tokio::time::sleep(A_MOMENT).await;
    drop(held);
    for id in [large, small] {
        let job = in_time(test.service.wait(id)).await.unwrap();
        assert_eq!(job.state, JobState::Succeeded);
    }
    assert_eq!(prepared(&log.acts()), ["hold", "large", "small"]);
}

#[tokio::test]
async fn a_file_that_is_decoded_again_waits_for_room_like_a_new_one() {
    let test = with_room(10 * PHOTO, FakeExecutor::new());
    let inner = &test.service.inner;
    let held = || test.parts.memory.held(MemoryUse::Images);
    let full = test.parts.memory.reserve(MemoryUse::Images, 10 * PHOTO).unwrap();
    let beyond = Arc::clone(&inner.decoding_beyond);
    let beyond = beyond.acquire_owned().await.unwrap();
    let files = || {
        let decoding = crate::image_codec::look_at(&photo_file(), LIMITS).unwrap();
        PendingInputs::Files {
            framed: None,
            files: vec![(InputRole::Init, photo_file(), decoding)],
        }
    };
    let job = sample_job(JobId::from_u128(1), SystemTime::UNIX_EPOCH);
    let mut decoded = Box::pin(files().decode(inner, &job));
    let waits = tokio::time::timeout(A_MOMENT, &mut decoded).await;
    assert!(waits.is_err(), "somebody else decodes beyond the account");
    drop(beyond);
    assert_eq!(in_time(decoded).await.unwrap().init(), Some(&photo()));
    drop(full);
    in_time(files().decode(inner, &job)).await.unwrap();
    assert_eq!(held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_keeps_its_turn_of_decoding_until_that_has_ended() {
    let mut config = TestConfig::default();
    config.service.decoding_images = 1;
    let test = TestService::start_with(FakeExecutor::new(), config);
    let size = Size {
        width: 4096,
        height: 4096,
    };
    let image = RgbImage::new(size, vec![90; 4096 * 4096 * 3]).unwrap();
    let file = encode(
        &image,
        ImageFormat::Png,
        (
            &ImageMetadata::new(&sample_request("x").recipe, Task::ImageToImage, 0, size),
            Marks::ALL,
        ),
    )
    .unwrap();
    let mut request = sample_request("x");
    request.inputs = Inputs::new(ImageSource::Inline(file));
    let limits = InputLimits {
        max_side: 4096,
        ..LIMITS
    };
    let service = test.service.clone();
    let caller = tokio::spawn(async move { service.submit(submission(request, limits)).await });
    let decoding = &test.service.inner.decoding;
    in_time(async {
        while decoding.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    caller.abort();
    assert!(in_time(caller).await.unwrap_err().is_cancelled());
    assert_eq!(decoding.available_permits(), 0, "it is still decoded");
    eventually(async || decoding.available_permits() == 1).await;
}
