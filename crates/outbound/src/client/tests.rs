//! Hostile name servers and hostile picture servers: faults F 59 to 64, one test per row and more.
//!
//! The servers are real sockets on loopback, which the guard of a test permits one by one; every other address of this
//! machine stays refused, so a test also sees whether anything connects to where it must not.

use std::time::Duration;

use pentimento_types::{ErrorKind, HasKind, SystemClock};
use rustls::RootCertStore;

use super::*;
use crate::guard::AddressClass;
use crate::{ImageFetcher, Refusal, UrlProblem};

mod answers;
mod servers;
mod tls;

use servers::{FakeResolver, Server, Told};

const NAME: &str = "pictures.example";

fn quick() -> FetchLimits {
    FetchLimits {
        max_bytes: 1000,
        patience: Duration::from_millis(500),
        answer: Duration::from_millis(1000),
        idle: Duration::from_millis(300),
        total: Duration::from_millis(1500),
    }
}

/// A client that may reach these servers and nothing else on this machine.
fn client_of(servers: &[&Server], resolver: FakeResolver) -> Arc<GuardedClient> {
    let permitted = servers.iter().map(|server| server.address).collect();
    let roots = RootCertStore::empty();
    Arc::new(GuardedClient::with(
        AddressGuard::permitting(permitted),
        Arc::new(resolver),
        roots,
    ))
}

/// Fetches `/` of a server by the name that resolves to it.
async fn fetch(server: &Server) -> Result<Bytes, OutboundError> {
    let client = client_of(&[server], FakeResolver::always(NAME, &["127.0.0.1"]));
    ImageFetcher::new(client, quick())
        .fetch(&server.url(NAME, "/"))
        .await
}

fn refused_class(error: &OutboundError) -> Option<AddressClass> {
    if let OutboundError::Unreachable(UnreachableCause::Refused(Refusal::Address { class, .. })) = error {
        return Some(*class);
    }
    None
}

#[tokio::test]
async fn a_picture_arrives_byte_by_byte_as_it_is() {
    let server = Server::answering("200 OK", &[("Content-Type", "image/png")], b"\x89PNG bytes").await;
    assert_eq!(fetch(&server).await.unwrap(), &b"\x89PNG bytes"[..]);
    let request = server.requests().remove(0);
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    let lower = request.to_ascii_lowercase();
    assert!(
        lower.contains(&format!("host: {NAME}:{}", server.address.port())),
        "{request}"
    );
    assert!(lower.contains("accept-encoding: identity"), "{request}");
    for absent in ["cookie", "referer", "authorization", "proxy"] {
        assert!(!lower.contains(absent), "{request}");
    }
}

// F 59: addresses.

#[tokio::test]
async fn refused_addresses_are_never_connected_to() {
    let inside = Server::answering("200 OK", &[], b"secret").await;
    let client = client_of(&[], FakeResolver::default());
    let port = inside.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "a.localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "0.0.0.0",
        "0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0x7f.1",
        "127。0。0。1",
        "１２７.0.0.1",
        "169.254.169.254",
        "metadata.google.internal",
        "metadata.google.internal.",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "[fc00::1]",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001::1]",
        "[fec0::1]",
        "[ff02::1]",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
    ] {
        let error = client
            .get(&format!("http://{host}:{port}/"), &quick())
            .await
            .unwrap_err();
        assert!(
            matches!(error, OutboundError::Unreachable(UnreachableCause::Refused(_))),
            "{host}: {error:?}"
        );
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn bad_urls_are_refused_by_their_text() {
    let client = client_of(&[], FakeResolver::default());
    let fetcher = ImageFetcher::new(client, quick());
    for (url, problem) in [
        ("http://user@127.0.0.1/", UrlProblem::Credentials),
        ("http://example.com:22/", UrlProblem::Port(22)),
        ("http://example.com:25/", UrlProblem::Port(25)),
        ("file:///etc/passwd", UrlProblem::Scheme),
        ("ftp://example.com/", UrlProblem::Scheme),
        ("gopher://example.com/", UrlProblem::Scheme),
        ("data:image/png;base64,AAAA", UrlProblem::Scheme),
        ("picture.png", UrlProblem::Unreadable),
    ] {
        assert_eq!(fetcher.check(url), Err(problem), "{url}");
        let error = fetcher.fetch(url).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Url { problem: found } if found == problem),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(fetcher.check("https://example.com/a.png"), Ok(()));
}

#[tokio::test]
async fn private_servers_need_the_explicit_switch() {
    let server = Server::answering("200 OK", &[], b"local").await;
    let url = format!("http://127.0.0.1:{}/", server.address.port());
    let strict = GuardedClient::new(AddressGuard::public_only());
    assert!(strict.get(&url, &quick()).await.is_err());
    assert_eq!(server.connections(), 0);
    let open = GuardedClient::new(AddressGuard::allowing_private());
    assert_eq!(open.get(&url, &quick()).await.unwrap().body, "local");
    let by_name = format!("http://localhost:{}/", server.address.port());
    assert_eq!(open.get(&by_name, &quick()).await.unwrap().body, "local");
}

// F 60: names.

#[tokio::test]
async fn one_refused_answer_refuses_the_name() {
    let server = Server::answering("200 OK", &[], b"x").await;
    for (answers, class) in [
        (&["127.0.0.1", "10.0.0.7"][..], AddressClass::Private),
        (&["127.0.0.1", "::1"][..], AddressClass::Loopback),
        (&["127.0.0.1", "fd00::1"][..], AddressClass::Private),
        (&["127.0.0.1", "::ffff:10.0.0.1"][..], AddressClass::Translated),
        (&["169.254.169.254", "127.0.0.1"][..], AddressClass::Metadata),
    ] {
        let client = client_of(&[&server], FakeResolver::always(NAME, answers));
        let error = client.get(&server.url(NAME, "/"), &quick()).await.unwrap_err();
        assert_eq!(refused_class(&error), Some(class), "{answers:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_asked_once_per_hop_and_checked_each_time() {
    let server =
        Server::start(|_| Told::bytes("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"));
    let server = server.await;
    let resolver = FakeResolver::sequence(NAME, &[&["127.0.0.1"], &["127.0.0.2"]]);
    let client = client_of(&[&server], resolver.clone());
    let error = client.get(&server.url(NAME, "/"), &quick()).await.unwrap_err();
    assert_eq!(refused_class(&error), Some(AddressClass::Loopback));
    assert_eq!((server.connections(), resolver.questions()), (1, 2));

    // Without a redirect the second answer never matters: the first one is what is connected to.
    let server = Server::answering("200 OK", &[], b"pinned").await;
    let resolver = FakeResolver::sequence(NAME, &[&["127.0.0.1"], &["127.0.0.2"]]);
    let client = client_of(&[&server], resolver.clone());
    assert_eq!(
        client.get(&server.url(NAME, "/"), &quick()).await.unwrap().body,
        "pinned"
    );
    assert_eq!(resolver.questions(), 1);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let server = Server::answering("200 OK", &[], b"second").await;
    let closed = SocketAddr::new([127, 0, 0, 3].into(), server.address.port());
    let guard = AddressGuard::permitting(vec![closed, server.address]);
    let resolver = Arc::new(FakeResolver::always(NAME, &["127.0.0.3", "127.0.0.1"]));
    let client = GuardedClient::with(guard, resolver, RootCertStore::empty());
    assert_eq!(
        client.get(&server.url(NAME, "/"), &quick()).await.unwrap().body,
        "second"
    );
}

#[tokio::test]
async fn unknown_slow_and_empty_names_are_unreachable() {
    let limits = FetchLimits {
        patience: Duration::from_millis(50),
        ..quick()
    };
    for (resolver, cause) in [
        (FakeResolver::default(), "the name could not be resolved"),
        (FakeResolver::always(NAME, &[]), "no address"),
        (FakeResolver::slow(), "the name server took too long"),
    ] {
        let client = client_of(&[], resolver);
        let error = client
            .get("https://pictures.example/a.png", &limits)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "the address could not be reached");
        let chain = pentimento_types::describe_chain(&error);
        assert!(chain.contains(cause), "{chain}");
    }
}

/// The real resolver follows CNAMEs and gives addresses of both families; this name is never asked of a network.
#[tokio::test]
async fn the_systems_resolver_knows_localhost() {
    let found = SystemResolver::new().resolve("localhost").await.unwrap();
    assert!(
        !found.is_empty() && found.iter().all(std::net::IpAddr::is_loopback),
        "{found:?}"
    );
}

// F 61: redirects.

fn redirecting(to: &'static str) -> impl Future<Output = Server> {
    Server::start(move |_| {
        Told::bytes(format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
        ))
    })
}

#[tokio::test]
async fn three_redirects_are_followed_and_the_fourth_is_not() {
    for (hops, followed) in [(0, true), (1, true), (3, true), (4, false), (20, false)] {
        let server = Server::start(move |request| {
            let hop: u32 = request.path().trim_start_matches('/').parse().unwrap_or(0);
            if hop == hops {
                return Told::bytes("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend");
            }
            Told::bytes(format!(
                "HTTP/1.1 307 X\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n",
                hop + 1
            ))
        })
        .await;
        let result = fetch(&server).await;
        if followed {
            assert_eq!(result.unwrap(), "end", "{hops}");
        } else {
            assert!(
                matches!(result, Err(OutboundError::TooManyRedirects { limit: 3 })),
                "{hops}"
            );
            assert_eq!(server.connections(), 4);
        }
    }
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let server = redirecting("/").await;
    assert!(matches!(
        fetch(&server).await,
        Err(OutboundError::TooManyRedirects { .. })
    ));
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_redirect_inside_is_refused_before_connecting() {
    let inside = Server::answering("200 OK", &[], b"secret").await;
    let port = inside.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "2130706433",
        "inner.example",
    ] {
        let location = format!("http://{host}:{port}/");
        let server = Server::start(move |_| {
            Told::bytes(format!(
                "HTTP/1.1 301 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            ))
        })
        .await;
        let resolver = FakeResolver::always(NAME, &["127.0.0.1"]).and("inner.example", &["127.0.0.1"]);
        let client = client_of(&[&server], resolver);
        let error = client.get(&server.url(NAME, "/"), &quick()).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Unreachable(UnreachableCause::Refused(_))),
            "{host}: {error:?}"
        );
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_another_scheme_is_refused() {
    for (to, expected) in [
        ("file:///etc/passwd", UrlProblem::Scheme),
        ("ftp://example.com/a", UrlProblem::Scheme),
        ("data:image/png;base64,AA", UrlProblem::Scheme),
        ("http://u:p@example.com/", UrlProblem::Credentials),
        ("http://example.com:25/", UrlProblem::Port(25)),
        ("http://", UrlProblem::Unreadable),
    ] {
        let server = redirecting(to).await;
        let error = fetch(&server).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Redirect { problem } if problem == expected),
            "{to}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_redirect_without_a_place_is_a_status() {
    for status in [301_u16, 302, 303, 304, 307, 308, 300] {
        let server =
            Server::start(move |_| Told::bytes(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")))
                .await;
        let error = fetch(&server).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Status { status: found } if found == status),
            "{error:?}"
        );
    }
}

// F 64: what an answer gives away.

/// An open port, a closed one, and a name that does not exist: one text, and nothing is ever sent inside.
#[tokio::test]
async fn nothing_tells_whether_an_inner_port_is_open() {
    let inside = Server::answering("200 OK", &[], b"secret").await;
    let closed = {
        let gone = Server::answering("200 OK", &[], b"").await;
        gone.address.port()
    };
    let resolver = FakeResolver::always("inner.example", &["127.0.0.1"]);
    let client = client_of(&[], resolver);
    let mut texts = Vec::new();
    for url in [
        format!("http://inner.example:{}/", inside.address.port()),
        format!("http://inner.example:{closed}/"),
        format!("http://127.0.0.1:{}/", inside.address.port()),
        format!("http://127.0.0.1:{closed}/"),
        "http://unknown.example/".to_owned(),
    ] {
        let before = now();
        let error = client.get(&url, &quick()).await.unwrap_err();
        assert!(before.elapsed() < Duration::from_millis(250), "{url}");
        texts.push((error.to_string(), error.kind()));
    }
    texts.dedup();
    assert_eq!(
        texts,
        [(
            "the address could not be reached".to_owned(),
            ErrorKind::InvalidInput
        )]
    );
    assert_eq!(inside.connections(), 0);
}

/// A server that may be reached but does not speak HTTP reads the same as one that is not there.
#[tokio::test]
async fn a_closed_port_reads_like_a_strange_one() {
    let strange = Server::answering_raw("SSH-2.0-x\r\n").await;
    let strange = fetch(&strange).await.unwrap_err();
    let gone = Server::answering_raw("").await;
    let address = gone.address;
    drop(gone);
    let guard = AddressGuard::permitting(vec![address]);
    let resolver = Arc::new(FakeResolver::always(NAME, &["127.0.0.1"]));
    let client = GuardedClient::with(guard, resolver, RootCertStore::empty());
    let closed = client
        .get(&format!("http://{NAME}:{}/", address.port()), &quick())
        .await
        .unwrap_err();
    assert!(
        matches!(closed, OutboundError::Unreachable(UnreachableCause::Connect(_))),
        "{closed:?}"
    );
    assert_eq!(closed.to_string(), strange.to_string());
}

#[tokio::test]
async fn exchanges_beyond_the_bound_wait_and_then_give_up() {
    let server = Server::start(|_| Told::Silence { after: "" }).await;
    let client = client_of(&[&server], FakeResolver::always(NAME, &["127.0.0.1"]));
    let held = client
        .exchanges
        .acquire_many(u32::try_from(MAX_EXCHANGES).unwrap())
        .await
        .unwrap();
    let limits = FetchLimits {
        total: Duration::from_millis(50),
        ..quick()
    };
    let error = client.get(&server.url(NAME, "/"), &limits).await.unwrap_err();
    assert!(matches!(error, OutboundError::Busy), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    drop(held);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn all_waits_of_a_call_share_one_time_beside_that_of_its_work() {
    let total = Duration::from_millis(50);
    let mut left = Left::new(total);
    // The sleep is ready no later than the time is over, so the first wait uses all of it and succeeds.
    left.wait(tokio::time::sleep(total)).await.unwrap();
    let again = left.wait(tokio::time::sleep(total / 2)).await.unwrap_err();
    assert!(matches!(again, OutboundError::Busy), "{again:?}");
    left.wait(async {}).await.expect("a free place costs no time");
    left.work(tokio::time::sleep(total)).await.unwrap();
    let again = left.work(tokio::time::sleep(total / 2)).await.unwrap_err();
    assert!(matches!(again, OutboundError::TimedOut), "{again:?}");
}

fn now() -> std::time::Instant {
    pentimento_types::Clock::now(&SystemClock)
}
