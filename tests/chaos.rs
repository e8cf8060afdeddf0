//! Chaos: the real server is killed again and again at random moments under load with both dialects, and started again on the
//! same data, while its clients go on. At the end nothing that was accepted is lost or made twice.
//!
//! A few rounds as a test; as many as one likes by `cargo xtask chaos --rounds N --seconds S`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use pentimento_jobs::{
    JobFilter, JobLimits, JobStore as _, Outbox as _, OutboxFilter, OutboxState, SqliteJobs,
};
use pentimento_types::{JobId, JobOutcome, JobState, SystemClock};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::client::{builder, good_body, good_modelslab_body};
use crate::support::server::TestServer;

/// Rounds and seconds of the whole where nothing else is said.
const ROUNDS: u32 = 6;
const SECONDS: u64 = 30;
/// Requests differ by their seeds, each of which has its picture.
const SEEDS: u32 = 4;
/// Callers of each dialect.
const CALLERS: u32 = 4;

const ENVIRONMENT: [(&str, &str); 2] = [
    // ModelsLab's calls are answered at once, and the pictures fetched.
    ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0"),
    // The receiver of the webhooks is on this machine.
    ("PENTIMENTO_ALLOW_PRIVATE_URLS", "true"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dialect {
    Novita,
    ModelsLab,
}

/// What the callers share.
struct Chaos {
    /// Where the server is now, or was a moment ago.
    address: watch::Receiver<SocketAddr>,
    /// The picture of each request, made by a server that did nothing else.
    solo: HashMap<(Dialect, u32), Bytes>,
    receiver: SocketAddr,
    over: AtomicBool,
    next: AtomicU32,
    ends: Mutex<Vec<End>>,
    http: reqwest::Client,
}

/// How a request of ours ended.
#[derive(Debug)]
enum End {
    /// With its picture.
    Picture,
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
        Dialect::ModelsLab => body["num_inference_steps"] = json!(1 + seed),
    }
    body
}

impl Chaos {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", *self.address.borrow())
    }

    /// Asks until there is an answer of a server: it may be killed at any moment of it.
    async fn ask(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        loop {
            let request = self.http.post(self.url(path)).json(body);
            let answer = async {
                let response = request.header("idempotency-key", key).send().await?;
                let status = response.status().as_u16();
                Ok::<_, reqwest::Error>((status, response.bytes().await?))
            };
            if let Ok((status, bytes)) = answer.await
                // A server that starts, stops or is full is asked again.
                && !matches!(status, 429 | 503)
            {
                return (status, serde_json::from_slice(&bytes).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Downloads a picture from wherever the server is now.
    async fn picture(&self, link: &str) -> Bytes {
        let path = link.splitn(4, '/').nth(3).expect("a link has a path");
        loop {
            let answer = async {
                let response = self.http.get(self.url(&format!("/{path}"))).send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.bytes().await?))
            };
            match answer.await {
                Ok((200, bytes)) => return bytes,
                Ok((status, bytes)) if status != 503 => {
                    panic!("{link}: {status} {}", String::from_utf8_lossy(&bytes))
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn novita(&self, seed: u32, key: &str) -> End {
        let (status, reply) = self
            .ask("/v3/lcm-img2img", key, &body(Dialect::Novita, seed))
            .await;
        if status != 200 {
            return End::Failed(reply.to_string());
        }
        let link = reply["images"][0]["image_url"].as_str().expect("a link");
        assert_eq!(self.picture(link).await, self.solo[&(Dialect::Novita, seed)]);
        End::Picture
    }

    async fn modelslab(&self, seed: u32, key: &str) -> End {
        let mut body = body(Dialect::ModelsLab, seed);
        body["webhook"] = json!(format!("http://{}/", self.receiver));
        body["track_id"] = json!(key);
        let path = "/api/v1/enterprise/img2img";
        let mut reply = self.ask(path, key, &body).await.1;
        while reply["status"] == "processing" {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let path = format!("/api/v1/enterprise/fetch/{}", reply["id"]);
            reply = self.ask(&path, key, &json!({"key": "any"})).await.1;
        }
        if reply["status"] != "success" {
            return End::Failed(reply.to_string());
        }
        let link = reply["output"][0].as_str().expect("a link");
        assert_eq!(self.picture(link).await, self.solo[&(Dialect::ModelsLab, seed)]);
        End::Picture
    }

    /// Asks and goes away, under no name.
    async fn hang_up(&self, seed: u32, after: Duration) -> End {
        let request = self.http.post(self.url("/v3/lcm-img2img"));
        let request = request.json(&body(Dialect::Novita, seed)).timeout(after);
        // Whatever comes of it.
        let _ = request.send().await;
        End::HungUp
    }

    /// One caller after the other request until the end.
    async fn call(self: Arc<Self>, dialect: Dialect, mut dice: StdRng) {
        while !self.over.load(Ordering::Relaxed) {
            let key = format!("request-{}", self.next.fetch_add(1, Ordering::Relaxed));
            let seed = dice.random_range(0..SEEDS);
            let end = match dialect {
                _ if dice.random_ratio(1, 10) => {
                    let after = Duration::from_millis(dice.random_range(1..200));
                    self.hang_up(seed, after).await
                }
                Dialect::Novita => self.novita(seed, &key).await,
                Dialect::ModelsLab => self.modelslab(seed, &key).await,
            };
            self.ends.lock().expect("no panic").push(end);
        }
    }
}

/// Every webhook that arrived: its id, and what it said. It takes one of three only, so that there are second sendings.
#[derive(Clone, Default)]
struct Receiver {
    messages: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    count: Arc<AtomicU32>,
}

impl Receiver {
    async fn start(&self) -> SocketAddr {
        async fn take(
            State(receiver): State<Receiver>,
            headers: HeaderMap,
            body: Bytes,
        ) -> axum::http::StatusCode {
            let id = headers["webhook-id"].to_str().expect("text").to_owned();
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            receiver
                .messages
                .lock()
                .expect("no panic")
                .entry(id)
                .or_default()
                .push(message);
            if receiver.count.fetch_add(1, Ordering::Relaxed) % 3 == 0 {
                axum::http::StatusCode::INTERNAL_SERVER_ERROR
            } else {
                axum::http::StatusCode::OK
            }
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let routes = Router::new().route("/", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the chaos lasts is for whoever starts the test to say"
)]
fn setting<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let set = std::env::var(name).ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Each picture, from a server that makes nothing else.
async fn solo(chaos: &mut Chaos) {
    for seed in 0..SEEDS {
        let reply = chaos
            .ask(
                "/v3/lcm-img2img",
                &format!("solo-{seed}"),
                &body(Dialect::Novita, seed),
            )
            .await
            .1;
        let link = reply["images"][0]["image_url"]
            .as_str()
            .expect("a link")
            .to_owned();
        let picture = chaos.picture(&link).await;
        chaos.solo.insert((Dialect::Novita, seed), picture);
        let (path, key) = ("/api/v1/enterprise/img2img", format!("solo-m-{seed}"));
        let mut reply = chaos.ask(path, &key, &body(Dialect::ModelsLab, seed)).await.1;
        while reply["status"] == "processing" {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let path = format!("/api/v1/enterprise/fetch/{}", reply["id"]);
            reply = chaos.ask(&path, &key, &json!({"key": "any"})).await.1;
        }
        let link = reply["output"][0].as_str().expect("a link").to_owned();
        let picture = chaos.picture(&link).await;
        chaos.solo.insert((Dialect::ModelsLab, seed), picture);
    }
}

fn chaos(address: SocketAddr, receiver: SocketAddr) -> (watch::Sender<SocketAddr>, Chaos) {
    let (sender, address) = watch::channel(address);
    let chaos = Chaos {
        address,
        solo: HashMap::new(),
        receiver,
        over: AtomicBool::new(false),
        next: AtomicU32::new(0),
        ends: Mutex::default(),
        http: builder()
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client"),
    };
    (sender, chaos)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_made_twice_however_often_the_server_is_killed() {
    let rounds = setting("CHAOS_ROUNDS", ROUNDS);
    let seconds = setting("CHAOS_SECONDS", SECONDS);
    let seed = setting("CHAOS_SEED", u64::from(std::process::id()));
    println!("{rounds} rounds in {seconds} s, CHAOS_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let home = tempfile::tempdir().expect("a folder for the server");
    let receiver = Receiver::default();
    let receiver_address = receiver.start().await;

    let alone = TestServer::start();
    let (_, mut solo_run) = chaos(alone.address(), receiver_address);
    solo(&mut solo_run).await;
    drop(alone);

    let mut server = TestServer::start_in(home.path(), &[], &ENVIRONMENT);
    let (address, mut chaos) = chaos(server.address(), receiver_address);
    chaos.solo = solo_run.solo;
    let chaos = Arc::new(chaos);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        for dialect in [Dialect::Novita, Dialect::ModelsLab] {
            callers.spawn(Arc::clone(&chaos).call(dialect, StdRng::seed_from_u64(dice.random())));
        }
    }
    let longest = 2 * 1000 * seconds / u64::from(rounds.max(1));
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..longest.max(1)))).await;
        server.kill();
        server = TestServer::start_in(home.path(), &[], &ENVIRONMENT);
        address.send_replace(server.address());
    }
    chaos.over.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.expect("every picture was as it should be");
    }
    until_told(&receiver, home.path(), &mut server).await;
    judge(&chaos, &receiver, home.path()).await;
}

/// Lets the server end everything, and stops it in order. Webhooks that were refused are sent again by a later start.
async fn until_told(receiver: &Receiver, home: &std::path::Path, server: &mut TestServer) {
    loop {
        let status = reqwest_json(&format!("{}/readyz", server.base())).await;
        if status["jobs"]["queued"] == 0 && status["jobs"]["running"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first sending of the last ones.
    let mut before = u32::MAX;
    loop {
        let now = receiver.count.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0), "{}", home.display());
}

async fn reqwest_json(address: &str) -> Value {
    let answer = builder().build().expect("a client").get(address).send().await;
    let bytes = answer.expect("it answers").bytes().await.expect("whole");
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Looks at what callers, the receiver of webhooks, the records and the pictures say.
#[expect(
    clippy::too_many_lines,
    reason = "one account, read from its beginning to its end"
)]
async fn judge(chaos: &Chaos, receiver: &Receiver, home: &std::path::Path) {
    let limits = JobLimits::in_number(1000, 1_000_000);
    let path = home.join("data/jobs.sqlite");
    let (store, recovery) = SqliteJobs::open(&path, Arc::new(SystemClock), limits).expect("readable");
    assert_eq!((recovery.damaged, recovery.damaged_file), (0, None));
    let jobs = store.list(&JobFilter::default()).await.expect("readable");
    let count = |state| jobs.iter().filter(|job| job.state == state).count();
    let (done, failed, cancelled) = (
        count(JobState::Succeeded),
        count(JobState::Failed),
        count(JobState::Cancelled),
    );
    let again = jobs.iter().filter(|job| job.attempt > 1).count();
    println!(
        "{} jobs: {done} done, {failed} failed, {cancelled} cancelled; {again} in more than one attempt",
        jobs.len()
    );
    assert_eq!(jobs.len(), done + failed + cancelled, "all have ended");

    let ends = std::mem::take(&mut *chaos.ends.lock().expect("no panic"));
    let pictures = ends.iter().filter(|end| matches!(end, End::Picture)).count();
    println!("{} requests: {pictures} pictures", ends.len());
    assert!(
        pictures > 0 && pictures <= done,
        "{pictures} pictures of {done} jobs"
    );
    for end in &ends {
        if let End::Failed(reply) = end {
            // In flight at two kills, which is as often as a job may be.
            assert!(reply.contains("poison"), "{reply}");
        }
    }

    let mut keys = HashMap::new();
    let mut stored = 0;
    for job in &jobs {
        match &job.outcome {
            Some(JobOutcome::Succeeded(images)) => {
                stored += images.len();
                for image in images {
                    assert!(
                        home.join("data/images").join(image.key.as_str()).is_file(),
                        "{}",
                        image.key
                    );
                }
                if let Some(request) = &job.idempotency {
                    let twin = keys.insert(request.key.clone(), job.id);
                    assert_eq!(twin, None, "{} was made twice", request.key);
                }
            }
            Some(JobOutcome::Failed(failure)) => assert!(failure.message.contains("poison"), "{failure:?}"),
            Some(JobOutcome::Cancelled) | None => {}
        }
    }
    let files = fs_err::read_dir(home.join("data/images/generations"))
        .expect("a folder")
        .count();
    assert!(files >= stored, "{files} files of {stored} pictures");

    let messages = std::mem::take(&mut *receiver.messages.lock().expect("no panic"));
    let ended: Vec<JobId> = jobs
        .iter()
        .filter(|job| job.delivery.webhook.is_some())
        .map(|job| job.id)
        .collect();
    let outbox = store.webhooks(&OutboxFilter::default()).await.expect("readable");
    assert_eq!(outbox.len(), ended.len(), "one for each outcome");
    for webhook in &outbox {
        let arrived = messages.get(&webhook.id.to_string());
        if webhook.state == OutboxState::Delivered {
            let arrived = arrived.expect("it was delivered");
            assert!(
                arrived.iter().all(|message| message["id"] == arrived[0]["id"]),
                "{arrived:?}"
            );
            assert!(
                arrived
                    .iter()
                    .all(|message| message["status"] == arrived[0]["status"]),
                "{arrived:?}"
            );
        }
    }
    let known = |id: &String| outbox.iter().any(|webhook| webhook.id.to_string() == *id);
    assert!(messages.keys().all(known), "no outcome was told under two ids");
    println!(
        "{} webhooks, {} sendings",
        outbox.len(),
        messages.values().map(Vec::len).sum::<usize>()
    );
}
