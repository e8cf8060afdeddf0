//! One caller's flood is the flood of one caller: another key gets a place, and its turn. Faults 69 to 72.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::{Reply, get, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

/// More than one key's share of the places, which is 192 of 256.
const FLOOD: u32 = 230;

/// What has become of the flood's calls so far.
#[derive(Debug, Default)]
struct Flood {
    done: AtomicUsize,
    refused: AtomicUsize,
    /// How many were done when the last refusal came.
    done_at_refusal: AtomicUsize,
}

impl Flood {
    fn note(&self, reply: &Reply) {
        match reply.status.as_u16() {
            200 => {
                self.done.fetch_add(1, Ordering::SeqCst);
            }
            429 => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                self.done_at_refusal
                    .fetch_max(self.done.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            other => panic!("{other}: {}", reply.json()),
        }
    }
}

async fn call(client: reqwest::Client, address: String, key: &str, steps: u32, seed: u32) -> Reply {
    let mut body = good_body();
    body["steps"] = json!(steps);
    body["strength"] = json!(1);
    body["seed"] = json!(seed);
    send(client.post(address).bearer_auth(key).json(&body)).await
}

/// Fault 70: with a hold of nothing, every call is answered as soon as its job is stored or refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_submits_at_once_are_all_accepted_or_refused() {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")]);
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    let (client, body) = (http(), good_modelslab_body());
    let calls = (0..1000).map(|seed| {
        let (client, address, mut body) = (client.clone(), address.clone(), body.clone());
        body["seed"] = json!(seed);
        async move { send(client.post(address).json(&body)).await.json() }
    });
    let replies: Vec<_> = futures::stream::iter(calls).buffer_unordered(400).collect().await;
    let count = |status: &str| {
        let of_status = replies.iter().filter(|reply| reply["status"] == status);
        of_status.count()
    };
    let (accepted, refused) = (count("processing") + count("success"), count("error"));
    assert_eq!(accepted + refused, 1000, "every call has an answer");
    assert!(accepted >= 256, "all places were used: {accepted}");
    for reply in replies.iter().filter(|reply| reply["status"] == "error") {
        assert_eq!(reply["message"], "Rate limit exceeded");
        assert!(reply["retry_after"].is_u64(), "{reply}");
    }
    // Nothing has got stuck.
    loop {
        let ready = get(&format!("{}/readyz", server.base())).await.json();
        if ready["jobs"]["queued"] == 0 && ready["jobs"]["running"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_key_leaves_places_and_turns_for_another() {
    let (many, one) = ("sk_many_0123456789", "sk_one_0123456789");
    let keys = [format!("many={many}"), format!("one={one}")];
    let server = TestServer::start_with(&["--key", &keys[0], "--key", &keys[1]], &[]);
    let address = format!("{}/v3/lcm-img2img", server.base());
    let client = http();
    let single = || call(client.clone(), address.clone(), one, 1, 1);
    assert_eq!(single().await.status, 200, "the model is in memory");

    let flood = Arc::new(Flood::default());
    let mut calls = JoinSet::new();
    for seed in 0..FLOOD {
        let (client, address, flood) = (client.clone(), address.clone(), Arc::clone(&flood));
        calls.spawn(async move {
            let reply = call(client, address, many, 8, seed).await;
            flood.note(&reply);
        });
    }
    // The places of that key are taken.
    while flood.refused.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!calls.is_empty(), "nobody was refused");
        while let Some(ended) = calls.try_join_next() {
            ended.expect("no panic");
        }
    }
    let before = flood.done.load(Ordering::SeqCst);
    let reply = single().await;
    let after = flood.done.load(Ordering::SeqCst);
    assert_eq!(reply.status, 200, "there is a place: {}", reply.json());
    assert!(
        after - before <= 40,
        "the single picture waited for {} of the flood's",
        after - before
    );
    while let Some(ended) = calls.join_next().await {
        ended.expect("no panic");
    }
    let [done, refused, done_at_refusal] =
        [&flood.done, &flood.refused, &flood.done_at_refusal].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(done + refused, FLOOD as usize, "every call has an answer");
    assert!(done >= 192, "the share of one key: {done}");
    assert!(
        done_at_refusal < done / 2,
        "refusals come before the work, not after {done_at_refusal} of {done}"
    );
}
