//! One caller who takes all that it can get: connections, bodies that trickle, replies that nobody reads, forms made to be
//! slow. Others are served meanwhile, and what was taken comes back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

const MODELSLAB: &str = "/api/v1/enterprise/img2img";
const KEY: &str = "sk_test_0123456789";
/// A machine that does other things too still answers within this; the faults took longer.
const SOON: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
fn now() -> Instant {
    Instant::now()
}

async fn answers(address: &str) -> bool {
    matches!(timeout(SOON, get(address)).await, Ok(reply) if reply.status == 200)
}

/// Whether the other end closes, whatever it says before.
async fn is_closed(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_idle_connections_than_there_are_keep_nobody_out() {
    let environment = [("PENTIMENTO_MAX_CONNECTIONS", "60")];
    let server = TestServer::start_with(&[], &environment);
    let health = format!("{}/healthz", server.base());
    let mut idle = Vec::new();
    for at in 0..200 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        if at % 2 == 0 {
            let _ = stream
                .write_all(b"POST /v3/lcm-img2img HTTP/1.1\r\nHost: loc")
                .await;
        }
        idle.push(stream);
    }
    assert!(answers(&health).await);
    assert_eq!(generate(&server, &good_body()).await.status, 200);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_its_share_and_health_checks_have_their_own() {
    let environment = [
        ("PENTIMENTO_MAX_CONNECTIONS", "40"),
        ("PENTIMENTO_MAX_CONNECTIONS_PER_ADDRESS", "20"),
        ("PENTIMENTO_STALL_SECONDS", "3"),
    ];
    let server = TestServer::start_with(&[], &environment);
    let admin = server.admin_base();
    // Bodies that go on trickling cannot be told from honest ones at first.
    let head = "POST /v3/lcm-img2img HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{";
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut refused = TcpStream::connect(server.address()).await.unwrap();
    let mut reply = String::new();
    timeout(SOON, refused.read_to_string(&mut reply))
        .await
        .unwrap()
        .unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 503") && reply.contains("Retry-After: 2"),
        "{reply}"
    );
    for path in ["/healthz", "/readyz", "/v1/models"] {
        assert!(answers(&format!("{admin}{path}")).await, "{path}");
    }
    // Another address of this machine is somebody else.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    if other.bind(([127, 0, 0, 2], 0).into()).is_ok() {
        let mut stream = other.connect(server.address()).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut reply = String::new();
        timeout(SOON, stream.read_to_string(&mut reply))
            .await
            .unwrap()
            .unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
    // A byte now and then does not keep a body alive.
    let start = now();
    while start.elapsed() < Duration::from_secs(6) {
        for stream in &mut slow {
            let _ = stream.write_all(b" ").await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for stream in slow {
        assert!(is_closed(stream).await, "a body that trickles is still read");
    }
    assert_eq!(generate(&server, &good_body()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_nobody_reads_do_not_stay() {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_STALL_SECONDS", "1")]);
    // Each asks for far more than the kernel keeps, and reads nothing of it.
    let asked = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let calls = (0..3).map(|_| {
        let (asked, address) = (asked.clone(), server.address());
        async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            // The server stops reading when it cannot write; that this ends at all is the connection's end.
            while stream.write_all(asked.as_bytes()).await.is_ok() {}
        }
    });
    let ended = timeout(2 * SOON, join_all(calls)).await;
    assert!(ended.is_ok(), "a connection is still open");
    assert!(answers(&format!("{}/healthz", server.base())).await);
}

/// Bodies of a form, of parts and of JSON that cost a second or an hour each when names are compared with each other.
fn slow_bodies() -> Vec<(&'static str, Bytes)> {
    const MANY: usize = 8 << 20;
    let form = "application/x-www-form-urlencoded";
    let mut names: String = (0..1000).map(|at| format!("name_{at:04}=&")).collect();
    let last = "name_0999=&";
    names.push_str(&last.repeat((MANY - names.len()) / last.len()));
    let long = |at: usize| format!("{at:04}{}", "x".repeat(1000));
    let object: Vec<String> = (0..4000)
        .map(|at| format!("\"{}{at}\":0", "x".repeat(2000)))
        .collect();
    let fields: Vec<String> = (0..100_000).map(|at| format!("\"k{at}\":0")).collect();
    let part = "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n";
    vec![
        (form, names.into()),
        (
            form,
            (0..2000)
                .map(|at| format!("{}=&", long(at)))
                .collect::<String>()
                .into(),
        ),
        (form, "%41".repeat(MANY / 3).into()),
        (form, "&".repeat(MANY).into()),
        (form, format!("prompt={}", "+".repeat(MANY)).into()),
        (
            "application/json",
            format!("{{\"init_image\":{{{}}}}}", object.join(",")).into(),
        ),
        ("application/json", format!("{{{}}}", fields.join(",")).into()),
        (
            "application/json",
            format!("{{\"x\":{}{}}}", "[".repeat(MANY), "]".repeat(MANY)).into(),
        ),
        (
            "application/json",
            format!("{{\"prompt\":\"{}\"}}", "\\u0041".repeat(MANY / 6)).into(),
        ),
        ("application/json", " ".repeat(MANY).into()),
        (
            "multipart/form-data; boundary=B",
            format!("{}--B--\r\n", part.repeat(MANY / part.len())).into(),
        ),
        (
            "multipart/form-data; boundary=B",
            format!("--B\r\n{}", "x".repeat(MANY)).into(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_made_to_be_slow_are_answered_soon_and_stop_nobody() {
    let keys = format!("tests={KEY}");
    let server = TestServer::start_with(&[], &[("PENTIMENTO_KEYS", &keys)]);
    let address = format!("{}{MODELSLAB}", server.base());
    let health = format!("{}/healthz", server.base());
    for (kind, body) in slow_bodies() {
        let calls = (0..2).map(|_| {
            let request = http().post(&address).header("content-type", kind);
            timeout(SOON, send(request.body(body.clone())))
        });
        let start = body.slice(..60);
        let (replies, healthy) = tokio::join!(join_all(calls), answers(&health));
        assert!(healthy, "{kind} {start:?}");
        for reply in replies {
            let reply = reply.unwrap_or_else(|_| panic!("{kind} {start:?} is not answered"));
            assert_eq!(reply.json()["status"], "error", "{kind} {start:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_names_are_refused_with_the_bound() {
    let server = TestServer::start();
    let address = format!("{}{MODELSLAB}", server.base());
    let tip = async |kind: &str, body: String| {
        let request = http().post(&address).header("content-type", kind).body(body);
        send(request).await.json()["tips"].to_string()
    };
    let form = "application/x-www-form-urlencoded";
    let many: String = (0..2000).map(|at| format!("k{at}=1&")).collect();
    assert!(tip(form, many).await.contains("1024 fields"));
    let long = format!("{}=1", "x".repeat(70_000));
    assert!(tip(form, long).await.contains("65536 bytes"));
    let mut call = good_modelslab_body();
    for at in 0..2000 {
        call[format!("k{at}")] = json!(1);
    }
    assert!(
        tip("application/json", call.to_string())
            .await
            .contains("1024 fields")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_hold_goes_back_after_their_time() {
    let keys = format!("tests={KEY}");
    let environment = [
        ("PENTIMENTO_KEYS", keys.as_str()),
        ("PENTIMENTO_BODY_MEMORY", "64 MiB"),
        ("PENTIMENTO_STALL_SECONDS", "4"),
    ];
    let server = TestServer::start_with(&[], &environment);
    // Each stops a byte short of what it has announced; together they are more than the strangers' quarter.
    let size = 3 << 20;
    let head = format!(
        "POST {MODELSLAB} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        size + 1
    );
    let piece = vec![b' '; size];
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = timeout(Duration::from_secs(2), stream.write_all(&piece)).await;
        held.push(stream);
    }
    // Who has a key is not touched by that.
    let known = send(
        http()
            .post(format!("{}/v3/lcm-img2img", server.base()))
            .bearer_auth(KEY)
            .json(&good_body()),
    )
    .await;
    assert_eq!(known.status, 200, "{}", String::from_utf8_lossy(&known.body));
    for stream in held {
        assert!(is_closed(stream).await, "a body that stands still is kept");
    }
    // A stranger, whose key is in the body, finds room again.
    let mut body = good_modelslab_body();
    body["key"] = json!(KEY);
    let made = send(http().post(format!("{}{MODELSLAB}", server.base())).json(&body)).await;
    assert_eq!(made.json()["status"], "success", "{}", made.json());
}
