//! Fault F 63: what a hostile server can answer. Everything is bounded by bytes and by time.

use super::*;

#[tokio::test]
async fn an_endless_body_ends_at_the_limit() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let chunked = head.contains("chunked");
        let server = Server::start(move |_| Told::Endless { head, chunked }).await;
        let error = fetch(&server).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::TooLarge { limit_bytes: 1000 }),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    for (length, taken) in [(0_usize, true), (999, true), (1000, true), (1001, false)] {
        let server = Server::start(move |_| {
            let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
            answer.resize(answer.len() + length, b'x');
            Told::Bytes(answer)
        })
        .await;
        let result = fetch(&server).await;
        match result {
            Ok(body) => assert!(taken && body.len() == length, "{length}"),
            Err(error) => assert!(
                !taken && matches!(error, OutboundError::TooLarge { .. }),
                "{length}: {error:?}"
            ),
        }
    }
}

#[tokio::test]
async fn a_claimed_length_is_refused_before_anything_is_stored() {
    let server = Server::answering_raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n").await;
    assert!(matches!(
        fetch(&server).await,
        Err(OutboundError::TooLarge { .. })
    ));
}

#[tokio::test]
async fn a_wrong_length_is_an_error_and_never_a_short_picture() {
    let server = Server::answering_raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    assert!(matches!(fetch(&server).await, Err(OutboundError::BrokenOff(_))));
    let server =
        Server::answering_raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort").await;
    assert!(matches!(fetch(&server).await, Err(OutboundError::BrokenOff(_))));
    // More than announced: what was announced counts.
    let server = Server::answering_raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlonger").await;
    assert_eq!(fetch(&server).await.unwrap(), "lo");
}

#[tokio::test]
async fn what_is_not_http_is_unreachable() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA",
        "-ERR unknown command\r\n",
    ] {
        let server = Server::answering_raw(answer).await;
        let error = fetch(&server).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Unreachable(UnreachableCause::Http(_))),
            "{answer:?}: {error:?}"
        );
    }
    let flood = format!(
        "HTTP/1.1 200 OK\r\n{}",
        "X-Fill: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(5000)
    );
    let server = Server::start(move |_| Told::bytes(flood.clone())).await;
    assert!(matches!(
        fetch(&server).await,
        Err(OutboundError::Unreachable(UnreachableCause::Http(_)))
    ));
}

#[tokio::test]
async fn a_trickle_is_bounded_by_time() {
    let server = Server::start(|_| Told::Trickle {
        every: Duration::from_millis(50),
    })
    .await;
    let limits = FetchLimits {
        total: Duration::from_millis(400),
        ..quick()
    };
    let client = client_of(&[&server], FakeResolver::always(NAME, &["127.0.0.1"]));
    let before = now();
    let error = client.get(&server.url(NAME, "/"), &limits).await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut), "{error:?}");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn silence_is_bounded_by_time() {
    // Before the answer, and in the middle of it.
    let server = Server::start(|_| Told::Silence { after: "" }).await;
    let limits = FetchLimits {
        patience: Duration::from_millis(100),
        ..quick()
    };
    let client = client_of(&[&server], FakeResolver::always(NAME, &["127.0.0.1"]));
    let error = client.get(&server.url(NAME, "/"), &limits).await.unwrap_err();
    assert!(
        matches!(
            error,
            OutboundError::Unreachable(UnreachableCause::TimedOut { .. })
        ),
        "{error:?}"
    );
    let server = Server::start(|_| Told::Silence {
        after: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    })
    .await;
    assert!(matches!(fetch(&server).await, Err(OutboundError::TimedOut)));
}

#[tokio::test]
async fn a_compressed_body_is_never_unpacked() {
    for coding in ["gzip", "br", "deflate", "zstd", "identity, gzip", "GZIP"] {
        let server = Server::answering("200 OK", &[("Content-Encoding", coding)], b"\x1f\x8b bomb").await;
        assert!(
            matches!(fetch(&server).await, Err(OutboundError::Compressed)),
            "{coding}"
        );
    }
    let server = Server::answering("200 OK", &[("Content-Encoding", "identity")], b"plain").await;
    assert_eq!(fetch(&server).await.unwrap(), "plain");
}

#[tokio::test]
async fn a_failure_names_the_status_and_not_the_body() {
    for (status, line) in [
        (404, "404 Not Found"),
        (403, "403 X"),
        (500, "500 X"),
        (503, "503 X"),
        (410, "410 X"),
    ] {
        let server = Server::answering(line, &[], b"inner secret").await;
        let error = fetch(&server).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the server answered with status {status}")
        );
        assert!(!format!("{error:?}").contains("secret"));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn a_page_instead_of_a_picture_is_left_to_the_decoder() {
    let server = Server::answering("200 OK", &[("Content-Type", "text/html")], b"<html>").await;
    assert_eq!(fetch(&server).await.unwrap(), "<html>");
}
