//! Images at addresses: fetched at the same time, and not waited for longer than the caller waits.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pentimento_types::{ErrorKind, HasKind as _, JobFailure, JobState, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::troubled_store::TroubledStore;
use super::*;
use crate::maintenance;

/// A server that answers every request with the photo, or with nonsense below `/bad`, once it is allowed to.
struct Slow {
    address: SocketAddr,
    /// Requests that have come.
    asked: watch::Receiver<usize>,
    answers: Arc<Semaphore>,
}

impl Slow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Semaphore::new(0));
        let (ask, asked) = watch::channel(0);
        let ask = Arc::new(ask);
        let permits = Arc::clone(&answers);
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let (ask, answers) = (Arc::clone(&ask), Arc::clone(&permits));
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let length = connection.read(&mut request).await.unwrap();
                    ask.send_modify(|asked| *asked += 1);
                    answers.acquire().await.unwrap().forget();
                    let body = if request[..length].starts_with(b"GET /bad") {
                        Bytes::from_static(b"this is no picture")
                    } else if request[..length].starts_with(b"GET /black") {
                        let black = RgbImage::new(photo().size(), vec![0; photo().pixels().len()]).unwrap();
                        crate::image_codec::to_file(&black).unwrap()
                    } else {
                        photo_file()
                    };
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = connection.write_all(head.as_bytes()).await;
                    let _ = connection.write_all(&body).await;
                });
            }
        });
        Self {
            address,
            asked,
            answers,
        }
    }

    fn url(&self, path: &str) -> ImageSource {
        ImageSource::Url(format!("http://{}/{path}", self.address))
    }

    fn answer(&self, requests: usize) {
        self.answers.add_permits(requests);
    }

    async fn asked(&mut self, requests: usize) {
        in_time(self.asked.wait_for(|asked| *asked == requests))
            .await
            .unwrap();
    }
}

fn at_once() -> Instant {
    SystemClock.now()
}

fn later() -> Instant {
    SystemClock.now() + LONG
}

async fn submit_until(
    test: &TestService,
    inputs: Inputs<ImageSource>,
    until: Instant,
) -> Result<JobId, ServiceError> {
    let request = Request {
        inputs,
        ..sample_request("x")
    };
    let submission = submission(request, LIMITS);
    in_time(test.service.submit_until(submission, until, Box::new(()))).await
}

#[tokio::test]
async fn all_images_are_asked_for_at_the_same_time() {
    let mut server = Slow::start().await;
    let test = Arc::new(TestService::start(FakeExecutor::new()));
    let inputs = Inputs::inpainting(server.url("a"), server.url("b"));
    let other = Arc::clone(&test);
    let submitted = tokio::spawn(async move { submit_until(&other, inputs, later()).await });
    // Neither is answered before both have been asked for.
    server.asked(2).await;
    server.answer(2);
    let id = in_time(submitted).await.unwrap().unwrap();
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_job_has_an_id_before_its_images_are_there() {
    let mut server = Slow::start().await;
    let test = TestService::start(FakeExecutor::new());
    let id = submit_until(&test, Inputs::new(server.url("a")), at_once())
        .await
        .unwrap();
    let job = test.service.fetch(id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Fetching, 0));
    assert!(test.service.time_left(id).is_some());
    assert_eq!(test.service.status().await.jobs.queued, 1, "it has a place");
    server.asked(1).await;
    server.answer(1);
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
    assert_eq!(stored_inputs(&test).await, 0);
}

#[tokio::test]
async fn a_fetched_image_says_what_the_job_will_take() {
    let server = Slow::start().await;
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let mut request = sample_request("hold");
    let inline = submit(&test.service, request.clone()).await.unwrap();
    let expected = test.service.fetch(inline).await.unwrap().work;
    held.arrives().await;
    request.inputs = Inputs::new(server.url("a"));
    let submitted = test
        .service
        .submit_until(submission(request, LIMITS), at_once(), Box::new(()));
    let id = in_time(submitted).await.unwrap();
    assert!(test.service.fetch(id).await.unwrap().work > expected, "a guess");
    let guessed = test.service.time_left(id).unwrap();
    server.answer(1);
    eventually(async || test.service.fetch(id).await.unwrap().state != JobState::Fetching).await;
    assert_eq!(test.service.fetch(id).await.unwrap().work, expected);
    assert!(test.service.time_left(id).unwrap() < guessed);
    drop(held);
}

#[tokio::test]
async fn images_that_do_not_come_fail_the_job_with_the_reason() {
    let server = Slow::start().await;
    let test = TestService::start(FakeExecutor::new());
    for (inputs, role) in [
        (Inputs::new(server.url("bad")), "init_image"),
        (
            Inputs::inpainting(inline_photo(), server.url("bad")),
            "mask_image",
        ),
    ] {
        // Within the time it is a refusal, and there is no job.
        server.answer(1);
        let refused = submit_until(&test, inputs.clone(), later()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert_eq!(test.service.status().await.jobs.queued, 0);
        let id = submit_until(&test, inputs, at_once()).await.unwrap();
        server.answer(1);
        let job = in_time(test.service.wait(id)).await.unwrap();
        assert_eq!(job.state, JobState::Failed);
        let Err(ServiceError::Failed(failure)) = crate::finished_images(&job) else {
            panic!("{job:?}")
        };
        assert_eq!(failure.kind, ErrorKind::InvalidInput);
        let start = format!("{role}: the picture cannot be read");
        assert!(failure.message.starts_with(&start), "{}", failure.message);
        eventually(async || stored_inputs(&test).await == 0 && test.service.time_left(id).is_none()).await;
    }
}

fn inline_photo() -> ImageSource {
    ImageSource::Inline(photo_file())
}

#[tokio::test]
async fn files_that_came_with_the_request_are_waited_for() {
    let test = TestService::start(FakeExecutor::new());
    let refused = submit_until(&test, Inputs::new(inline(b"no picture")), at_once()).await;
    assert!(matches!(refused, Err(ServiceError::ImageUndecodable { .. })));
    let id = submit_until(&test, Inputs::new(inline_photo()), at_once())
        .await
        .unwrap();
    assert_ne!(test.service.fetch(id).await.unwrap().state, JobState::Fetching);
}

#[tokio::test]
async fn a_cancelled_job_stops_its_fetching_and_gives_everything_back() {
    let mut server = Slow::start().await;
    let test = TestService::start(FakeExecutor::new());
    let request = Request {
        inputs: Inputs::new(server.url("a")),
        ..sample_request("x")
    };
    let count = Arc::new(());
    let held = Box::new(Arc::clone(&count));
    let submitted = test
        .service
        .submit_until(submission(request, LIMITS), at_once(), held);
    let id = in_time(submitted).await.unwrap();
    server.asked(1).await;
    assert_eq!(
        Arc::strong_count(&count),
        2,
        "the caller's bytes are accounted for"
    );
    let job = test.service.cancel(id).await.unwrap();
    assert_eq!(job.state, JobState::Cancelled);
    eventually(async || Arc::strong_count(&count) == 1).await;
    server.answer(1);
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(test.service.fetch(id).await.unwrap().state, JobState::Cancelled);
    assert_eq!(stored_inputs(&test).await, 0);
}

#[tokio::test]
async fn a_server_that_stops_tells_who_waits_for_images() {
    let server = Slow::start().await;
    let test = TestService::start(FakeExecutor::new());
    let id = submit_until(&test, Inputs::new(server.url("a")), at_once())
        .await
        .unwrap();
    in_time(test.service.shutdown(A_MOMENT)).await;
    let job = in_time(test.service.wait(id)).await.unwrap();
    let Err(ServiceError::Failed(failure)) = crate::finished_images(&job) else {
        panic!("{job:?}")
    };
    assert_eq!(failure.kind, ErrorKind::Unavailable);
}

/// The failure of a job that has ended.
async fn failure(test: &TestService, id: JobId) -> JobFailure {
    let job = in_time(test.service.wait(id)).await.unwrap();
    match crate::finished_images(&job) {
        Err(ServiceError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_job_whose_taking_in_panics_fails() {
    let server = Slow::start().await;
    let (store, test) = TroubledStore::start(FakeExecutor::new());
    store.panics_at_fetched.store(true, Ordering::Relaxed);
    let id = submit_until(&test, Inputs::new(server.url("a")), at_once())
        .await
        .unwrap();
    server.answer(1);
    assert_eq!(failure(&test, id).await.kind, ErrorKind::Internal);
    eventually(async || stored_inputs(&test).await == 0).await;
}

#[tokio::test]
async fn the_sweeper_fails_jobs_for_which_nobody_fetches() {
    let mut server = Slow::start().await;
    let (store, test) = TroubledStore::start(FakeExecutor::new());
    store.fails_at_fail.store(true, Ordering::Relaxed);
    let lost = submit_until(&test, Inputs::new(server.url("bad")), at_once())
        .await
        .unwrap();
    server.asked(1).await;
    server.answer(1);
    eventually(async || !store.fails_at_fail.load(Ordering::Relaxed)).await;
    let inner = &test.service.inner;
    eventually(async || !inner.fetching.contains(lost)).await;
    assert_eq!(test.service.fetch(lost).await.unwrap().state, JobState::Fetching);
    let fetched = submit_until(&test, Inputs::new(server.url("a")), at_once())
        .await
        .unwrap();
    maintenance::sweep(inner).await;
    assert_eq!(failure(&test, lost).await.kind, ErrorKind::Unavailable);
    // One that is on its way is left alone.
    server.answer(1);
    let job = in_time(test.service.wait(fetched)).await.unwrap();
    assert_eq!(job.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_mask_that_comes_late_and_keeps_everything_gives_the_input_back() {
    let mut server = Slow::start().await;
    let executor = FakeExecutor::new();
    let recording = executor.recording();
    let test = TestService::start(executor);
    let inputs = Inputs::inpainting(server.url("a"), server.url("black"));
    let id = submit_until(&test, inputs, at_once()).await.unwrap();
    server.asked(2).await;
    server.answer(2);
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!(job.notes, [pentimento_types::JobNote::MaskKeepsEverything]);
    let image = &crate::finished_images(&job).unwrap()[0];
    let file = test.parts.images.get(&image.key).await.unwrap();
    assert_eq!(crate::image_codec::decode(&file, LIMITS).unwrap(), photo());
    assert!(recording.acts().is_empty(), "nothing is computed");
}
