//! What callers can make the server hold: each scenario took gigabytes once, and each has a bound on resident memory now.
//!
//! The bounds are far above what the server needs and far below what it took. `VmHWM` is the most that a process ever
//! held, so no moment between two looks is missed. Linux only, because only there a process can be asked for it.

use reqwest::Client;
use serde_json::json;

use crate::support::client::{generate, good_body, good_modelslab_body, send};
use crate::support::server::TestServer;

const MIB: u64 = 1024 * 1024;
const MODELSLAB: &str = "/api/v1/enterprise/img2img";

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
    let request = Client::new().post(format!("{}{MODELSLAB}", server.base()));
    let reply = send(request.json(&body)).await.json();
    assert_growth(&server, before, 64 * MIB, "a prompt of 10,000 emoji");
    assert_eq!(reply["status"], "error", "{reply}");
    let message = reply["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("prompt") && message.contains("token"),
        "{message}"
    );
    let numbers = numbers(message);
    assert!(numbers.contains(&LIMIT), "the limit is not in {message:?}");
    assert!(
        numbers.iter().any(|found| *found > LIMIT),
        "what was found is not in {message:?}"
    );
    assert_eq!(generate(&server, &good_body()).await.status, 200);
}
