//! What callers can make the server hold: each scenario took gigabytes once, and each has a bound on resident memory now.
//!
//! The bounds are far above what the server needs and far below what it took. `VmHWM` is the most that a process ever
//! held, so no moment between two looks is missed. Linux only, because only there a process can be asked for it.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::any_size;
use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

const MIB: u64 = 1024 * 1024;
const MODELSLAB: &str = "/api/v1/enterprise/img2img";
const NOVITA: &str = "/v3/lcm-img2img";
/// The setting of how many bytes of bodies may be in memory at once.
const BODY_MEMORY: &str = "PENTIMENTO_BODY_MEMORY";
/// The setting of how many bytes of decoded images may be in memory at once.
const IMAGE_MEMORY: &str = "PENTIMENTO_IMAGE_MEMORY";

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

/// Fails when the server ever held more than `allowed` bytes above `before`, and prints what it was.
fn assert_growth(server: &TestServer, before: u64, allowed: u64, what: &str) {
    let peak = server.peak_memory();
    let grown = peak.saturating_sub(before);
    println!("{what}: from {} to {}", mib(before), mib(peak));
    assert!(
        grown < allowed,
        "{what} took the server from {} to {}; {} more are allowed",
        mib(before),
        mib(peak),
        mib(allowed)
    );
}

/// Once a request has run, so that weights and working memory are not taken for growth.
async fn warmed_up() -> TestServer {
    let server = TestServer::start();
    assert_eq!(generate(&server, &good_body()).await.status, 200);
    server
}

/// Numbers in a text.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_of_ten_thousand_emoji_is_refused_by_its_tokens_and_takes_no_memory() {
    const LIMIT: u64 = 75 * 32;
    let server = warmed_up().await;
    let before = server.peak_memory();
    let mut body = good_modelslab_body();
    body["prompt"] = json!("🎨".repeat(10_000));
    let request = http().post(format!("{}{MODELSLAB}", server.base()));
    let reply = send(request.json(&body)).await.json();
    assert_growth(&server, before, 64 * MIB, "a prompt of 10,000 emoji");
    assert_eq!(reply["status"], "error", "{reply}");
    let message = reply["message"].to_string();
    assert!(
        message.contains("prompt") && message.contains("token"),
        "{message}"
    );
    let numbers = numbers(&message);
    assert!(numbers.contains(&LIMIT), "the limit is not in {message:?}");
    assert!(
        numbers.iter().any(|found| *found > LIMIT),
        "what was found is not in {message:?}"
    );
    assert_eq!(generate(&server, &good_body()).await.status, 200);
}

/// Waits until the peak has not moved for some time: what had to be allocated is.
async fn until_calm(server: &TestServer, rest: Duration) {
    let (mut peak, mut since) = (server.peak_memory(), Instant::now());
    while since.elapsed() < rest {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = server.peak_memory();
        if now != peak {
            (peak, since) = (now, Instant::now());
        }
    }
}

/// A caller's request that is held back just before its last byte.
struct HeldBack {
    stream: TcpStream,
}

impl HeldBack {
    /// Sends all but the end. A server that does not want the rest may stop reading or close; that is its answer.
    async fn begin(server: &TestServer, path: &str, body: &Bytes) -> Self {
        let mut stream = TcpStream::connect(server.address())
            .await
            .expect("the server takes connections");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body[..body.len() - 1]).await
        };
        let _ = timeout(Duration::from_secs(30), sent).await;
        Self { stream }
    }

    /// Sends the end, and reads the status line and the headers, in small letters, and the body.
    async fn end(mut self, body: &Bytes) -> (u16, String) {
        let _ = self.stream.write_all(&body[body.len() - 1..]).await;
        let mut reply = Vec::new();
        let _ = timeout(Duration::from_secs(60), self.stream.read_to_end(&mut reply)).await;
        let text = String::from_utf8_lossy(&reply).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), text)
    }
}

/// Sends the body to each path, many callers at once and without a key, so that all bodies have arrived or been refused
/// before the first one ends.
async fn flood(
    server: &TestServer,
    paths: &[&'static str],
    callers: usize,
    size: usize,
) -> Vec<(u16, String)> {
    let bodies: Vec<Bytes> = paths.iter().map(|path| body_of_size(path, size)).collect();
    let begun = (0..callers)
        .map(|caller| HeldBack::begin(server, paths[caller % paths.len()], &bodies[caller % paths.len()]));
    let begun = join_all(begun).await;
    until_calm(server, Duration::from_millis(500)).await;
    let ended = begun
        .into_iter()
        .enumerate()
        .map(|(caller, call)| call.end(&bodies[caller % paths.len()]));
    join_all(ended).await
}

/// A body of so many bytes, nearly all of them base64.
fn body_of_size(path: &str, size: usize) -> Bytes {
    let before = if path == MODELSLAB {
        "{\"model_id\":\"demo\",\"prompt\":\"x\",\"init_image\":\""
    } else {
        "{\"model_name\":\"demo\",\"prompt\":\"x\",\"input_image\":\""
    };
    let mut body = before.as_bytes().to_vec();
    body.resize(size - 2, b'A');
    body.extend_from_slice(b"\"}");
    body.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_a_key_cannot_fill_the_memory_with_bodies() {
    const KEY: &str = "sk_test_0123456789";
    const CALLERS: usize = 24;
    const SIZE: usize = 59 * 1024 * 1024;
    /// Room for one or two bodies of this size and what is parsed out of them, and not for all.
    const BUDGET: u64 = 256 * MIB;
    /// What connections and small buffers take beside the bodies.
    const KEPT: u64 = 96 * MIB;
    let (budget, keys) = (BUDGET.to_string(), format!("tests={KEY}"));
    let environment = [
        ("PENTIMENTO_KEYS", keys.as_str()),
        ("PENTIMENTO_MODELSLAB_STRICT_HTTP_STATUS", "true"),
        (BODY_MEMORY, budget.as_str()),
    ];
    for (paths, what) in [
        (&[MODELSLAB][..], "bodies whose key is inside"),
        (&[NOVITA][..], "bodies whose key is in a header"),
        (&[MODELSLAB, NOVITA][..], "bodies of both dialects"),
    ] {
        let server = TestServer::start_with(&[], &environment);
        let before = server.peak_memory();
        let replies = flood(&server, paths, CALLERS, SIZE).await;
        assert_growth(&server, before, BUDGET + KEPT, what);
        for (status, text) in &replies {
            assert!(matches!(status, 400 | 401 | 403 | 503), "{what}: {status} {text}");
            let when = text.contains("\r\nretry-after: ");
            assert_eq!(*status == 503, when, "{what}: {status} {text}");
        }
        // Novita's callers are refused by a header before their bodies count; of the others' bodies not all fit at once.
        let busy = replies.iter().filter(|(status, _)| *status == 503).count();
        assert_eq!(
            busy > 0,
            paths.contains(&MODELSLAB),
            "{what}: {busy} were told to come back"
        );
        // What the bodies held has been given back.
        let request = http().post(format!("{}{NOVITA}", server.base()));
        let reply = send(request.bearer_auth(KEY).json(&good_body())).await;
        assert_eq!(
            reply.status,
            200,
            "{what}: {}",
            String::from_utf8_lossy(&reply.body)
        );
    }
}

/// Asks `/readyz` until the numbers of the jobs are right.
async fn until_jobs(server: &TestServer, right: impl Fn(u64) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let status = get(&format!("{}/readyz", server.base())).await.json();
        let count = |name: &str| status["jobs"][name].as_u64().unwrap_or_default();
        if right(count("queued") + count("running")) {
            return;
        }
        assert!(Instant::now() < give_up, "the jobs never came to that: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A flat PNG of 2048x2048: about 22 kB in base64, 12 MiB once decoded.
fn large_flat_picture() -> String {
    let picture = image::RgbImage::from_pixel(2048, 2048, image::Rgb([64, 128, 192]));
    let mut file = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut file, image::ImageFormat::Png)
        .expect("a PNG can be written");
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, file.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_hold_no_decoded_pictures() {
    const WAITING: u64 = 59;
    /// Five of these images; all together are 720 MiB.
    const BUDGET: u64 = 64 * MIB;
    /// What else a waiting job takes, and what decoding leaves with the allocator.
    const BESIDE: u64 = 160 * MIB;
    let server = TestServer::start_with(&["--models", &any_size()], &[(IMAGE_MEMORY, &BUDGET.to_string())]);
    let mut body = good_body();
    body["input_image"] = json!(large_flat_picture());
    let body = Bytes::from(body.to_string());
    let call = || {
        let request = http().post(format!("{}{NOVITA}", server.base()));
        tokio::spawn(send(
            request
                .header("content-type", "application/json")
                .body(body.clone()),
        ))
    };
    // The first is in the engine, and its only evaluation takes longer than all the rest of this test.
    let running = call();
    until_jobs(&server, |jobs| jobs == 1).await;
    until_calm(&server, Duration::from_secs(4)).await;
    let before = server.peak_memory();
    let waiting: Vec<_> = (0..WAITING).map(|_| call()).collect();
    until_jobs(&server, |jobs| jobs > WAITING).await;
    until_calm(&server, Duration::from_secs(3)).await;
    assert_growth(
        &server,
        before,
        BUDGET + BESIDE,
        "59 requests that wait behind one",
    );
    assert!(!running.is_finished(), "the first ended, so that nobody waited");
    for call in waiting.iter().chain([&running]) {
        call.abort();
    }
}
