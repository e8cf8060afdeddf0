//! The links of finished pictures: who has one may read that picture, and nothing else.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::{addresses, generate, get, good_body, http, send};
use crate::support::server::TestServer;

async fn one_address(server: &TestServer) -> (String, Value) {
    let reply = generate(server, &good_body()).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let reply = reply.json();
    (addresses(&reply).remove(0), reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_gives_its_picture_whole_or_in_part() {
    let server = TestServer::start();
    let (address, reply) = one_address(&server).await;
    assert!(
        address.starts_with(&format!("{}/files/", server.base())),
        "{address}"
    );
    let ttl: u64 = reply["images"][0]["image_url_ttl"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3590..=3600).contains(&ttl), "{ttl}");

    let whole = get(&address).await;
    assert_eq!(whole.headers["content-type"], "image/png");
    assert_eq!(whole.headers["content-length"], whole.body.len().to_string());
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let head = send(http().head(&address)).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], whole.body.len().to_string());

    let part = send(http().get(&address).header("range", "bytes=1-3")).await;
    assert_eq!(
        (part.status.as_u16(), part.body.as_ref()),
        (206, b"PNG".as_slice())
    );
    assert_eq!(
        part.headers["content-range"],
        format!("bytes 1-3/{}", whole.body.len())
    );
    let beyond = send(http().get(&address).header("range", "bytes=99999999-")).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(send(http().post(&address)).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_link_gives_nothing() {
    let server = TestServer::start();
    let (first, _) = one_address(&server).await;
    let (second, _) = one_address(&server).await;
    let files = format!("{}/files", server.base());
    let parts = |address: &str| {
        let rest = address.strip_prefix(&format!("{files}/")).unwrap();
        let parts: Vec<String> = rest.splitn(3, '/').map(str::to_owned).collect();
        <[String; 3]>::try_from(parts).unwrap()
    };
    let ([expires, signature, key], [_, _, other_key]) = (parts(&first), parts(&second));
    let other_signature = format!(
        "{}{}",
        &signature[1..],
        if signature.ends_with('0') { '1' } else { '0' }
    );
    for address in [
        format!("{files}/{key}"),
        format!("{files}/{expires}/{key}"),
        format!("{files}/9{expires}/{signature}/{key}"),
        format!("{files}/{expires}/{other_signature}/{key}"),
        format!("{files}/{expires}/{signature}/{other_key}"),
        format!("{first}x"),
        format!("{files}/{key}?expires={expires}&signature={signature}"),
        format!("{files}/{expires}/{signature}/../secret"),
        format!("{files}/{expires}/{signature}/%2e%2e/%2e%2e/etc/passwd"),
        format!("{files}/{expires}/{signature}/generations/..%2f..%2fsecret"),
        format!("{files}/"),
        files.clone(),
    ] {
        let reply = get(&address).await;
        assert!(
            matches!(reply.status.as_u16(), 403 | 404),
            "{address}: {}",
            reply.status
        );
        assert!(!reply.body.starts_with(b"\x89PNG"), "{address}");
    }
    assert_eq!(get(&first).await.status, 200);
    // Lines may reach the file a moment after the answer.
    let mut log = server.log();
    for _ in 0..100 {
        if log.contains("/files/…/") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        log = server.log();
    }
    assert!(
        log.contains("/files/…/") && !log.contains(&signature),
        "a link is not to be had from the log:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_when_it_says() {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_LINK_TTL_SECONDS", "2")]);
    let (address, reply) = one_address(&server).await;
    assert!(
        ["1", "2"]
            .map(Value::from)
            .contains(&reply["images"][0]["image_url_ttl"]),
        "{reply}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let late = get(&address).await;
    assert!(matches!(late.status.as_u16(), 403 | 404), "{}", late.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_begin_with_the_public_address() {
    let server = TestServer::start_with(&["--public-url", "https://pictures.example/base/"], &[]);
    let (address, _) = one_address(&server).await;
    let rest = address.strip_prefix("https://pictures.example/base/files/");
    let rest = rest.unwrap_or_else(|| panic!("{address}"));
    assert_eq!(get(&format!("{}/files/{rest}", server.base())).await.status, 200);
}
