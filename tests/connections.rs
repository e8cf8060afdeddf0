//! What a connection can do wrong below HTTP's own level; the server must answer or close, and go on serving others.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::client::{generate, get, good_body};
use crate::support::server::TestServer;

const HEAD: &str = "POST /v3/lcm-img2img HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

/// Sends `request` and reads what comes until the connection rests for a second or ends.
async fn raw(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("the server takes connections");
    // The server may close while we still write.
    let _ = stream.write_all(request).await;
    let mut reply = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(2), stream.read(&mut piece)).await {
        reply.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_are_refused_and_others_are_served() {
    let mut server = TestServer::start();
    let body = good_body().to_string();
    let length = body.len();
    for (request, status) in [
        // Declared far too long: refused before a byte of it is sent.
        (format!("{HEAD}Content-Length: 99999999999\r\n\r\n"), "413"),
        (
            format!("{HEAD}Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"),
            "413",
        ),
        // Not a number, or two numbers.
        (format!("{HEAD}Content-Length: x\r\n\r\n"), "400"),
        (
            format!("{HEAD}Content-Length: 3\r\nContent-Length: {length}\r\n\r\n{body}"),
            "400",
        ),
        // No body at all.
        (format!("{HEAD}\r\n"), "400"),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000)),
            "414",
        ),
        (
            format!(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                "a: b\r\n".repeat(5_000)
            ),
            "431",
        ),
        ("\0\u{1}\u{2}not http at all\r\n\r\n".to_owned(), "400"),
    ] {
        let shown: String = request.chars().take(120).collect();
        let reply = raw(&server, request.as_bytes()).await;
        let answer = reply.split_whitespace().nth(1).unwrap_or_default();
        assert_eq!(answer, status, "{shown:?} got {reply:?}");
        assert!(server.is_alive());
    }
    // Cut off in the middle, and left open without a word.
    drop(TcpStream::connect(server.address()).await);
    let silent = TcpStream::connect(server.address()).await;
    raw(
        &server,
        format!("{HEAD}Content-Length: {length}\r\n\r\n{}", &body[..20]).as_bytes(),
    )
    .await;
    raw(
        &server,
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"mod").as_bytes(),
    )
    .await;
    assert_eq!(generate(&server, &good_body()).await.status, 200);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_when_the_caller_waits_for_that() {
    let server = TestServer::start();
    let body = good_body().to_string();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "{HEAD}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut piece = [0; 1024];
    let count = timeout(Duration::from_secs(10), stream.read(&mut piece))
        .await
        .unwrap()
        .unwrap();
    assert!(
        piece[..count].starts_with(b"HTTP/1.1 100 "),
        "{:?}",
        String::from_utf8_lossy(&piece[..count])
    );
    stream.write_all(body.as_bytes()).await.unwrap();
    let count = timeout(Duration::from_secs(60), stream.read(&mut piece))
        .await
        .unwrap()
        .unwrap();
    assert!(
        piece[..count].starts_with(b"HTTP/1.1 200 "),
        "{:?}",
        String::from_utf8_lossy(&piece[..count])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_silent_connections_keep_nobody_out() {
    let server = TestServer::start();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(server.address()).await.unwrap());
    }
    assert_eq!(get(&format!("{}/healthz", server.base())).await.status, 200);
    assert_eq!(generate(&server, &good_body()).await.status, 200);
}
