//! Rates at every door: told in the dialect's words, counted for the right caller, and no caller counted for another.

use std::num::NonZeroU32;

use pentimento_service::RateConfig;

use super::*;
use crate::client_address::Peer;

fn limited(calls: u32, polls: u32, trust_forwarded: bool) -> ApiConfig {
    ApiConfig {
        rates: RateConfig {
            anonymous_requests_per_minute: NonZeroU32::new(calls),
            polls_per_minute: NonZeroU32::new(polls).unwrap(),
        },
        trust_forwarded,
        ..config()
    }
}

fn from(mut request: Request<Body>, peer: &str, forwarded: &str) -> Request<Body> {
    request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    if !forwarded.is_empty() {
        let value = forwarded.parse().unwrap();
        request.headers_mut().insert("x-forwarded-for", value);
    }
    request
}

#[tokio::test]
async fn an_address_has_its_calls_and_no_header_of_a_caller_gives_it_more() {
    let test = TestService::start(FakeExecutor::new());
    let router = router_with(&test, &[], limited(2, 1000, false));
    let call = async |peer: &str, forwarded: &str| {
        send(&router, from(post(&good("a house")), peer, forwarded)).await
    };
    assert_eq!(call("203.0.113.7", "").await.status, 200);
    assert_eq!(call("203.0.113.7", "198.51.100.1").await.status, 200);
    let refused = call("203.0.113.7", "198.51.100.2").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["reason"], "RATE_LIMIT_EXCEEDED");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(call("203.0.113.8", "").await.status, 200, "others have their own");
}

#[tokio::test]
async fn a_trusted_proxy_tells_its_callers_apart() {
    let test = TestService::start(FakeExecutor::new());
    let router = router_with(&test, &[], limited(1, 1000, true));
    let call = async |forwarded: &str| {
        send(&router, from(post(&good("a house")), "10.0.0.1", forwarded))
            .await
            .status
    };
    assert_eq!(call("198.51.100.1").await, 200);
    assert_eq!(call("198.51.100.2").await, 200);
    // What the caller has put before it does not count.
    assert_eq!(call("192.0.2.99, 198.51.100.2").await, 429);
}

#[tokio::test]
async fn polls_have_a_bucket_of_their_own_at_every_door() {
    let test = TestService::start(FakeExecutor::new());
    let router = router_with(&test, &[], limited(1, 3, false));
    let fetch = || {
        Request::post("/api/v1/enterprise/fetch/7")
            .header("host", "pictures.test")
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(send(&router, post(&good("a house"))).await.status, 200);
    assert_eq!(send(&router, post(&good("a house"))).await.status, 429);
    assert_eq!(
        send(&router, fetch()).await.json()["message"],
        "Request not found"
    );
    for path in ["/v1/models", "/v3/model"] {
        assert_eq!(get(&router, path).await.status, 200, "{path}");
    }
    let refused = send(&router, fetch()).await;
    assert_eq!(refused.status, 200, "as the vendor has it");
    let body = refused.json();
    assert_eq!(
        (&body["status"], &body["message"], &body["messege"]),
        (
            &json!("error"),
            &json!("Rate limit exceeded"),
            &json!("Rate limit exceeded")
        )
    );
    assert!(
        (1..=20).contains(&body["retry_after"].as_u64().unwrap()),
        "{body}"
    );
    let own = get(&router, "/v1/models").await;
    assert_eq!(
        (own.status, &own.json()["error"]["kind"]),
        (429, &json!("quota_exceeded"))
    );
    assert_eq!(get(&router, "/v3/user").await.json()["code"], 429);
    assert_eq!(get(&router, "/files/1/00/x.png").await.status, 429);
    // Whether the server lives is nobody's poll.
    assert_eq!(get(&router, "/healthz").await.status, 200);
    assert_eq!(get(&router, "/readyz").await.status, 200);
}

#[tokio::test]
async fn strict_statuses_are_the_real_ones() {
    let test = TestService::start(FakeExecutor::new());
    let mut config = limited(1, 1, false);
    config.modelslab.strict_http_status = true;
    let router = router_with(&test, &[], config);
    let fetch = || {
        Request::post("/api/v1/enterprise/fetch/7")
            .header("host", "pictures.test")
            .body(Body::empty())
            .unwrap()
    };
    send(&router, fetch()).await;
    let refused = send(&router, fetch()).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
}
