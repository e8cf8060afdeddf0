//! Callers of both dialects that go on whatever becomes of the servers, and compare every picture with the one that a server
//! makes which does nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{builder, good_body, good_modelslab_body};
use super::server::TestServer;

/// What every server needs that these callers ask.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] = [
    // ModelsLab's calls are answered at once, and the pictures fetched.
    ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0"),
    // The receiver of the webhooks is on this machine.
    ("PENTIMENTO_ALLOW_PRIVATE_URLS", "true"),
];

/// Requests differ by their seeds, each of which has its picture. The last of ModelsLab's takes some seconds of a debug build.
const SEEDS: u32 = 5;
const LONG_SEED: u32 = SEEDS - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    Novita,
    ModelsLab,
}

/// The picture of each request.
pub(crate) type Pictures = HashMap<(Dialect, u32), Bytes>;

/// What the callers share.
pub(crate) struct Callers {
    /// Where each server is now, or was a moment ago.
    servers: Vec<watch::Receiver<SocketAddr>>,
    solo: Pictures,
    receiver: SocketAddr,
    /// Between two requests of a caller.
    pause: Duration,
    over: AtomicBool,
    next: AtomicU32,
    ends: Mutex<Vec<End>>,
    http: reqwest::Client,
}

/// How a request of ours ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With its picture, under this key.
    Picture(String),
    /// Its job failed, for this reason.
    Failed(String),
    /// The caller hung up.
    HungUp,
}

fn body(dialect: Dialect, seed: u32) -> Value {
    let mut body = match dialect {
        Dialect::Novita => good_body(),
        Dialect::ModelsLab => good_modelslab_body(),
    };
    body["seed"] = json!(seed);
    match dialect {
        Dialect::Novita => body["steps"] = json!(1 + seed % 4),
        Dialect::ModelsLab if seed == LONG_SEED => {
            for (name, value) in [("width", 128), ("height", 128), ("num_inference_steps", 30)] {
                body[name] = json!(value);
            }
        }
        Dialect::ModelsLab => body["num_inference_steps"] = json!(1 + seed),
    }
    body
}

impl Callers {
    /// Callers of servers at these addresses, whose webhooks go to `receiver`, and who rest for so long after each request.
    pub(crate) fn new(
        servers: Vec<watch::Receiver<SocketAddr>>,
        (receiver, pause): (SocketAddr, Duration),
        solo: Pictures,
    ) -> Arc<Self> {
        Arc::new(Self {
            servers,
            solo,
            receiver,
            pause,
            over: AtomicBool::new(false),
            next: AtomicU32::new(0),
            ends: Mutex::default(),
            http: builder()
                .timeout(Duration::from_secs(60))
                .build()
                .expect("a client"),
        })
    }

    /// Each picture, from a server that makes nothing else.
    pub(crate) async fn solo() -> Pictures {
        let server = TestServer::start_with(&[], &ENVIRONMENT);
        let (_sender, address) = watch::channel(server.address());
        let nowhere = ([127, 0, 0, 1], 9).into();
        let callers = Self::new(vec![address], (nowhere, Duration::ZERO), Pictures::new());
        let mut pictures = Pictures::new();
        for seed in 0..SEEDS {
            for dialect in [Dialect::Novita, Dialect::ModelsLab] {
                let key = format!("solo-{dialect:?}-{seed}");
                let link = match dialect {
                    Dialect::Novita => callers.novita(0, seed, &key).await,
                    Dialect::ModelsLab => callers.modelslab(0, seed, &key, None).await,
                };
                let picture = callers.picture(0, &link.expect("a picture")).await;
                pictures.insert((dialect, seed), picture);
            }
        }
        pictures
    }

    /// Starts so many callers of each dialect.
    pub(crate) fn start(self: &Arc<Self>, of_each: u32, dice: &mut StdRng) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..of_each {
            for dialect in [Dialect::Novita, Dialect::ModelsLab] {
                callers.spawn(Arc::clone(self).call(dialect, StdRng::seed_from_u64(dice.random())));
            }
        }
        callers
    }

    /// Lets them end what they have begun; says how all requests ended.
    pub(crate) async fn finish(&self, mut callers: JoinSet<()>) -> Vec<End> {
        self.over.store(true, Ordering::Relaxed);
        while let Some(caller) = callers.join_next().await {
            caller.expect("every picture was as it should be");
        }
        std::mem::take(&mut *self.ends.lock().expect("no panic"))
    }

    fn url(&self, server: usize, path: &str) -> String {
        format!("http://{}{path}", *self.servers[server].borrow())
    }

    /// Asks until there is an answer of the server: it may be killed at any moment of it.
    async fn ask(&self, server: usize, (path, key): (&str, &str), body: &Value) -> (u16, Value) {
        loop {
            let request = self.http.post(self.url(server, path)).json(body);
            let answer = async {
                let response = request.header("idempotency-key", key).send().await?;
                let status = response.status().as_u16();
                Ok::<_, reqwest::Error>((status, response.bytes().await?))
            };
            if let Ok((status, bytes)) = answer.await {
                let reply: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                // A server that starts, stops, is full or has nobody to run it is asked again; ModelsLab's calls say so in the
                // body.
                if !matches!(status, 429 | 503) && reply["retry_after"].is_null() {
                    return (status, reply);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Downloads a picture from wherever the server is now.
    async fn picture(&self, server: usize, link: &str) -> Bytes {
        let path = link.splitn(4, '/').nth(3).expect("a link has a path");
        loop {
            let answer = async {
                let response = self
                    .http
                    .get(self.url(server, &format!("/{path}")))
                    .send()
                    .await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.bytes().await?))
            };
            match answer.await {
                Ok((200, bytes)) => return bytes,
                Ok((status, bytes)) if status != 503 => {
                    panic!(
                        "{link} from {server}: {status} {}",
                        String::from_utf8_lossy(&bytes)
                    )
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The link to the picture, or why there is none.
    async fn novita(&self, server: usize, seed: u32, key: &str) -> Result<String, String> {
        let (status, reply) = self
            .ask(server, ("/v3/lcm-img2img", key), &body(Dialect::Novita, seed))
            .await;
        let link = reply["images"][0]["image_url"].as_str().map(str::to_owned);
        link.filter(|_| status == 200).ok_or_else(|| reply.to_string())
    }

    /// The same, with a webhook where there is a receiver.
    async fn modelslab(
        &self,
        server: usize,
        seed: u32,
        key: &str,
        receiver: Option<SocketAddr>,
    ) -> Result<String, String> {
        let mut body = body(Dialect::ModelsLab, seed);
        if let Some(receiver) = receiver {
            body["webhook"] = json!(format!("http://{receiver}/"));
            body["track_id"] = json!(key);
        }
        let path = "/api/v1/enterprise/img2img";
        let mut reply = self.ask(server, (path, key), &body).await.1;
        while reply["status"] == "processing" {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let path = format!("/api/v1/enterprise/fetch/{}", reply["id"]);
            reply = self.ask(server, (&path, key), &json!({"key": "any"})).await.1;
        }
        let link = reply["output"][0].as_str().map(str::to_owned);
        link.filter(|_| reply["status"] == "success")
            .ok_or_else(|| reply.to_string())
    }

    /// Asks and goes away, under no name.
    async fn hang_up(&self, server: usize, seed: u32, after: Duration) {
        let request = self.http.post(self.url(server, "/v3/lcm-img2img"));
        let request = request.json(&body(Dialect::Novita, seed)).timeout(after);
        // Whatever comes of it.
        let _ = request.send().await;
    }

    /// One request after the other until the end. Each is one server's until it is answered: while the broker is away, a key is
    /// one for each server only. The picture comes from any.
    async fn call(self: Arc<Self>, dialect: Dialect, mut dice: StdRng) {
        while !self.over.load(Ordering::Relaxed) {
            let key = format!("request-{}", self.next.fetch_add(1, Ordering::Relaxed));
            let seed = dice.random_range(0..SEEDS);
            let server = dice.random_range(0..self.servers.len());
            let link = match dialect {
                _ if dice.random_ratio(1, 10) => {
                    let after = Duration::from_millis(dice.random_range(1..200));
                    self.hang_up(server, seed, after).await;
                    None
                }
                Dialect::Novita => Some(self.novita(server, seed, &key).await),
                Dialect::ModelsLab => Some(self.modelslab(server, seed, &key, Some(self.receiver)).await),
            };
            let end = match link {
                None => End::HungUp,
                Some(Err(reply)) => End::Failed(reply),
                Some(Ok(link)) => {
                    let other = dice.random_range(0..self.servers.len());
                    let picture = self.picture(other, &link).await;
                    assert_eq!(
                        picture,
                        self.solo[&(dialect, seed)],
                        "{dialect:?} {seed} of {key}"
                    );
                    End::Picture(key)
                }
            };
            self.ends.lock().expect("no panic").push(end);
            tokio::time::sleep(self.pause).await;
        }
    }
}
