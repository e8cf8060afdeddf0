//! Who may send how much: whoever is refused by a header has nothing of its body read, and what all bodies take is
//! bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt as _;
use pentimento_types::MemoryUse;

use super::modelslab_calls::{modelslab, modelslab_body};
use super::*;
use crate::body::{BodyMemory, Sender};

const IMG2IMG: &str = "/api/v1/enterprise/img2img";
const MEBIBYTE: usize = 1024 * 1024;

/// A body that says whether anybody looked at it.
fn watched() -> (Body, Arc<AtomicBool>) {
    let read = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&read);
    let pieces = futures::stream::poll_fn(move |_| {
        seen.store(true, Ordering::Relaxed);
        std::task::Poll::Ready(None::<Result<bytes::Bytes, std::io::Error>>)
    });
    (Body::from_stream(pieces), read)
}

fn state(
    test: &TestService,
    keys: &[(&str, &str)],
    config: ApiConfig,
    ledger: &Arc<MemoryLedger>,
) -> AppState {
    let keys = keys
        .iter()
        .map(|(label, secret)| ((*label).to_owned(), (*secret).to_owned()));
    AppState::new(
        test.service.clone(),
        KeyRing::new(keys),
        config,
        Arc::clone(ledger),
    )
}

#[tokio::test]
async fn a_caller_whom_a_header_names_wrongly_is_refused_with_the_body_unread() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("tests", "sk_1")]);
    for (path, header, says) in [
        ("/v3/lcm-img2img", None, "MISSING_API_KEY"),
        ("/v3/lcm-img2img", Some("Bearer sk_2"), "INVALID_API_KEY"),
        (IMG2IMG, Some("Bearer sk_2"), "Invalid API key"),
        ("/api/v1/enterprise/img2img?key=sk_2", None, "Invalid API key"),
    ] {
        let (body, read) = watched();
        // Who waits for this has sent nothing yet, so nothing is read away behind the refusal either.
        let mut request = Request::post(path)
            .header("expect", "100-continue")
            .body(body)
            .unwrap();
        if let Some(header) = header {
            request
                .headers_mut()
                .insert("authorization", header.parse().unwrap());
        }
        let reply = send(&router, request).await;
        assert!(
            String::from_utf8_lossy(&reply.body).contains(says),
            "{path}: {}",
            reply.json()
        );
        assert!(!read.load(Ordering::Relaxed), "{path}: the body was read");
    }
}

#[tokio::test]
async fn beyond_the_budget_both_dialects_say_when_to_come_back() {
    let test = TestService::start(FakeExecutor::new());
    let ledger = room(GIBIBYTE);
    let state = state(&test, &[], config(), &ledger);
    let router = build_router(state.clone());
    let mut held = BodyMemory::new(&state.bodies, Sender::Identified).unwrap();
    held.grow(1 << 30).unwrap();
    for call in [
        post(&good("a house")),
        modelslab(IMG2IMG, modelslab_body().to_string()),
    ] {
        let refused = send(&router, call).await;
        assert_eq!(refused.status, 503, "{}", refused.json());
        assert_eq!(refused.headers["retry-after"], "2");
        let found = refused.json();
        let novita = found["reason"] == "CREATE_TASK_FAILED" && found["code"] == 503;
        let modelslab = found["status"] == "error" && found["retry_after"] == 2;
        assert!(novita || modelslab, "{found}");
        assert!(found["message"].as_str().unwrap().contains("no room"), "{found}");
    }
    drop(held);
    for again in [
        post(&good("a house")),
        modelslab(IMG2IMG, modelslab_body().to_string()),
    ] {
        assert_eq!(send(&router, again).await.status, 200);
    }
    assert_eq!(ledger.held(MemoryUse::Bodies), 0, "all bytes came back");
}

/// A body of a text in pieces of a mebibyte, `mebibytes` long, that counts what of it was taken.
fn large(head: &str, mebibytes: usize, taken: &Arc<AtomicUsize>) -> Body {
    let head = bytes::Bytes::from(head.to_owned());
    let piece = bytes::Bytes::from(vec![b'x'; MEBIBYTE]);
    let taken = Arc::clone(taken);
    let pieces = std::iter::once(head).chain(std::iter::repeat_n(piece, mebibytes));
    Body::from_stream(futures::stream::iter(pieces.map(move |piece| {
        taken.fetch_add(piece.len(), Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(piece)
    })))
}

#[tokio::test]
async fn unidentified_callers_share_a_part_and_a_key_in_front_ends_the_share() {
    let test = TestService::start(FakeExecutor::new());
    let config = ApiConfig {
        max_body_bytes: 8 * MEBIBYTE,
        ..config()
    };
    let ledger = room(128 << 20);
    let state = state(&test, &[("tests", "sk_1")], config, &ledger);
    let router = build_router(state.clone());
    let mut others = BodyMemory::new(&state.bodies, Sender::Unidentified).unwrap();
    others.grow(32 * MEBIBYTE).unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let call = |head: &str| send(&router, modelslab(IMG2IMG, large(head, 4, &taken)));
    // Without a key there is no room for one byte more.
    let refused = call(r#"{"prompt":""#).await;
    assert_eq!(refused.status, 503, "{}", refused.json());
    // With one it is everybody's room, and the body is read to its end, which is no JSON.
    let broken = call(r#"{"key":"sk_1","prompt":""#).await;
    assert!(broken.json()["message"]["prompt"].is_array(), "{}", broken.json());
    // A wrong one ends the reading at once.
    let wrong = call(r#"{"key":"sk_2","prompt":""#).await;
    assert_eq!(wrong.json()["message"], "Invalid API key");
    drop(others);
    assert_eq!(ledger.held(MemoryUse::Bodies), 0);
    let missing = call(r#"{"prompt":""#).await;
    assert!(
        missing.json()["message"]["prompt"].is_array(),
        "{}",
        missing.json()
    );
    assert_eq!(ledger.held(MemoryUse::Bodies), 0, "all bytes came back");
}

#[tokio::test]
async fn many_unidentified_callers_at_once_take_no_more_than_their_share() {
    let test = TestService::start(FakeExecutor::new());
    let config = ApiConfig {
        max_body_bytes: 8 * MEBIBYTE,
        body_idle_timeout: Duration::from_millis(300),
        ..config()
    };
    let ledger = room(128 << 20);
    let state = state(&test, &[("tests", "sk_1")], config, &ledger);
    let router = build_router(state.clone());
    // Each sends 7 MiB and then nothing more, so that all of them are there at the same time.
    let calls = (0..24).map(|_| {
        let pieces = std::iter::repeat_n(bytes::Bytes::from(vec![b' '; MEBIBYTE]), 7);
        let pieces = futures::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>));
        let body = Body::from_stream(pieces.chain(futures::stream::pending()));
        let router = router.clone();
        tokio::spawn(async move { send(&router, modelslab(IMG2IMG, body)).await.status })
    });
    let calls: Vec<_> = calls.collect();
    let mut most = 0;
    let mut statuses = Vec::new();
    for call in calls {
        while !call.is_finished() {
            most = most.max(ledger.held(MemoryUse::Bodies));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        statuses.push(call.await.unwrap());
    }
    assert!(most > 0 && most <= 32 << 20, "{most}");
    let count = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert!(count(503) > 0 && count(408) > 0, "{statuses:?}");
    assert_eq!(count(503) + count(408), 24, "{statuses:?}");
    assert_eq!(ledger.held(MemoryUse::Bodies), 0);
}

#[tokio::test]
async fn a_form_whose_key_is_known_holds_nothing_of_the_strangers_share_while_its_image_is_fetched() {
    let test = TestService::start(FakeExecutor::new());
    let ledger = room(128 << 20);
    let config = ApiConfig {
        max_body_bytes: 8 * MEBIBYTE,
        ..config()
    };
    let state = state(&test, &[("tests", "sk_1")], config, &ledger);
    let router = build_router(state.clone());
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("http://{}/a.png", silent.local_addr().unwrap());
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("key", "sk_1"),
            ("model_id", "demo"),
            ("prompt", "a house"),
            ("init_image", &image),
            ("mask_image", &image_file()),
        ])
        .finish();
    let mut request = modelslab("/api/v1/enterprise/inpaint", form);
    let kind = "application/x-www-form-urlencoded".parse().unwrap();
    request.headers_mut().insert("content-type", kind);
    let call = tokio::spawn(async move { send(&router, request).await.json() });
    let asked = tokio::time::timeout(Duration::from_secs(10), silent.accept()).await;
    let _connection = asked.expect("the image is asked for").unwrap();
    assert!(ledger.held(MemoryUse::Bodies) > 0, "the mask is held");
    let mut others = BodyMemory::new(&state.bodies, Sender::Unidentified).unwrap();
    others.grow(32 * MEBIBYTE).expect("all of the share is free");
    call.abort();
}
