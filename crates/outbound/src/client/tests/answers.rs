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
        answer: Duration::from_millis(200),
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
async fn names_that_are_no_compression_leave_the_body_as_it_is() {
    for coding in [
        "",
        "identity",
        "aws-chunked",
        "UTF-8",
        "utf8",
        "base64",
        "aws-chunked, identity",
        "png",
    ] {
        let server = Server::answering("200 OK", &[("Content-Encoding", coding)], b"plain").await;
        assert_eq!(fetch(&server).await.unwrap(), "plain", "{coding:?}");
    }
}

fn packed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Read as _;
    let mut packed = Vec::new();
    match coding {
        "gzip" => GzEncoder::new(bytes, Compression::best()).read_to_end(&mut packed),
        "zlib" => ZlibEncoder::new(bytes, Compression::best()).read_to_end(&mut packed),
        "raw" => DeflateEncoder::new(bytes, Compression::best()).read_to_end(&mut packed),
        _ => {
            packed = zstd::encode_all(bytes, 3).unwrap();
            Ok(0)
        }
    }
    .unwrap();
    packed
}

#[tokio::test]
async fn a_compression_that_was_not_asked_for_is_undone() {
    let file = b"a picture ".repeat(90);
    for (name, body) in [
        ("gzip", packed("gzip", &file)),
        ("X-GZIP", packed("gzip", &file)),
        ("deflate", packed("zlib", &file)),
        ("deflate", packed("raw", &file)),
        ("zstd", packed("zstd", &file)),
        ("aws-chunked,gzip", packed("gzip", &file)),
        ("gzip, zstd", packed("zstd", &packed("gzip", &file))),
    ] {
        let server = Server::answering("200 OK", &[("Content-Encoding", name)], &body).await;
        assert_eq!(fetch(&server).await.unwrap(), file, "{name}");
    }
}

#[tokio::test]
async fn a_bomb_is_cut_off_at_the_limit_and_the_rest_is_refused_by_name() {
    let bomb = vec![0; 10 << 20];
    for coding in ["gzip", "zstd"] {
        let server =
            Server::answering("200 OK", &[("Content-Encoding", coding)], &packed(coding, &bomb)).await;
        let limits = FetchLimits {
            max_bytes: 1 << 20,
            ..quick()
        };
        let client = client_of(&[&server], FakeResolver::always(NAME, &["127.0.0.1"]));
        let error = client.get(&server.url(NAME, "/"), &limits).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::TooLarge { limit_bytes } if limit_bytes == 1 << 20),
            "{coding}: {error:?}"
        );
    }
    for (coding, part) in [
        ("br", "(br)"),
        ("compress", "(compress)"),
        ("gzip", "(gzip), and it cannot be unpacked"),
        ("zstd", "(zstd), and it cannot be unpacked"),
        ("deflate", "(deflate), and it cannot be unpacked"),
        ("gzip, gzip, gzip", "several"),
    ] {
        let server = Server::answering("200 OK", &[("Content-Encoding", coding)], b"\xff\x8b bomb").await;
        let error = fetch(&server).await.unwrap_err();
        assert!(error.to_string().contains(part), "{coding}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn a_slow_host_does_not_use_up_the_places_of_the_others() {
    let slow = Server::start(|_| Told::Silence {
        after: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    })
    .await;
    let limits = FetchLimits {
        idle: Duration::from_secs(60),
        total: Duration::from_secs(60),
        ..quick()
    };
    let resolver = FakeResolver::always("slow.example", &["127.0.0.1"]);
    let resolver = (0..40).fold(resolver, |resolver, at| {
        resolver.and(&format!("{at}.slow.example"), &["127.0.0.1"])
    });
    let client = client_of(&[&slow], resolver);
    // By one name more than all places together, and by many names of one address.
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..80 {
        let host = if at < 40 {
            "slow.example".to_owned()
        } else {
            format!("{}.slow.example", at - 40)
        };
        let (client, url) = (Arc::clone(&client), slow.url(&host, "/"));
        calls.spawn(async move { client.get(&url, &limits).await });
    }
    while slow.connections() < MAX_EXCHANGES_OF_AN_ADDRESS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(slow.connections(), MAX_EXCHANGES_OF_AN_ADDRESS);
    let other = timeout(
        Duration::from_secs(10),
        client
            .exchanges
            .acquire_many(u32::try_from(MAX_EXCHANGES - MAX_EXCHANGES_OF_AN_ADDRESS).unwrap()),
    );
    assert!(other.await.is_ok(), "the other places are free");
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
