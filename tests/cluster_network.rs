//! Lines between machines that are cut in the middle of a job, for longer than any worker may be silent, and healed: one result,
//! one webhook, and the picture that a single server makes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::keys::new_key;
use crate::support::account::Account;
use crate::support::broker::{Broker, programs};
use crate::support::callers::ENVIRONMENT;
use crate::support::client::get;
use crate::support::ground::{begun, environment_of, job, nodes, picture, until, until_workers};
use crate::support::network::{Namespace, is_inside, service_address};
use crate::support::receiver::Receiver;
use crate::support::s3_server::S3Server;
use crate::support::server::TestServer;
use crate::support::worker::TestWorker;

/// A worker may be silent for twice that.
const LEASE_SECONDS: u64 = 2;
const SILENCE: Duration = Duration::from_secs(2 * LEASE_SECONDS);

/// What machines share, each at an address of its own, and one machine that answers callers.
struct Scene {
    broker: Broker,
    broker_at: Ipv4Addr,
    store: S3Server,
    store_at: Ipv4Addr,
    receiver: Receiver,
    receiver_at: SocketAddr,
    folder: TempDir,
    front_at: Namespace,
    /// The operator's, since no server is open at an address that others reach.
    key: String,
    /// The picture of [`long`] jobs.
    solo: Vec<u8>,
}

impl Scene {
    /// None where this machine has no broker.
    async fn new() -> Option<Self> {
        let program = programs().pop()?;
        let (broker_at, store_at, receiver_at) = (service_address(1), service_address(2), service_address(3));
        let receiver = Receiver::default();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("front/data");
        fs_err::create_dir_all(&data).unwrap();
        Some(Self {
            key: new_key(&data, &["operator", "--admin"]),
            broker: Broker::start_at(broker_at, program, "authorization { token: \"hush\" }"),
            broker_at,
            store: S3Server::start_at((store_at, 0).into()).await,
            store_at,
            receiver_at: receiver.start_at(receiver_at).await,
            receiver,
            folder,
            front_at: Namespace::new(1),
            solo: Vec::new(),
        })
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = environment_of(self.broker.url().as_str(), &self.store.address());
        let more = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
        environment.extend(more);
        let lease = ("PENTIMENTO_CLUSTER_LEASE_SECONDS", LEASE_SECONDS.to_string());
        environment.push((lease.0.to_owned(), lease.1));
        environment
    }

    fn home(&self, name: &str) -> PathBuf {
        let home = self.folder.path().join(name);
        fs_err::create_dir_all(&home).unwrap();
        home
    }

    /// The machine that answers callers. A later start is the same machine.
    fn front(&self, runs_jobs: bool) -> TestServer {
        let mut program = self.front_at.command(env!("CARGO_BIN_EXE_pentimento"));
        program
            .envs(self.environment())
            .env("PENTIMENTO_RUNS_JOBS", runs_jobs.to_string())
            .env("PENTIMENTO_RUNNING_JOBS", "1");
        TestServer::start_at(self.front_at.address(), program, (&self.home("front"), &[])).with_key(&self.key)
    }

    fn worker(&self, place: &Namespace, name: &str) -> TestWorker {
        let program = place.command(env!("CARGO_BIN_EXE_pentimento"));
        TestWorker::start_as(program, (&self.home(name), &self.environment()))
    }

    /// A job that lasts, which a machine has begun with.
    async fn long_job(&self, front: &TestServer) -> String {
        let mut change = long();
        change["webhook"] = json!(format!("http://{}/", self.receiver_at));
        let id = begun(front, change).await;
        until("it is at work", async || {
            (job(front, &id).await["progress"]["done"].as_u64() > Some(0)).then_some(())
        })
        .await;
        id
    }

    /// Waits for the end of a long job, which has its picture; returns its attempt.
    async fn ended(&self, front: &TestServer, id: &str) -> u64 {
        let ended = until("it ends", async || {
            let job = job(front, id).await;
            matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(job)
        })
        .await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        let link = ended["images"][0]["url"].as_str().unwrap();
        assert_eq!(get(link).await.body, self.solo, "{link}");
        ended["attempt"].as_u64().unwrap()
    }

    fn cut_all(&self, place: &Namespace) {
        for address in [self.broker_at, self.store_at] {
            place.cut(address);
        }
    }

    fn heal_all(&self, place: &Namespace) {
        for address in [self.broker_at, self.store_at] {
            place.heal(address);
        }
    }

    /// Waits until each of `jobs` is told, stops the machine, and looks whether all that it says is that.
    async fn judge(&self, mut front: TestServer, jobs: usize) {
        until("the webhooks arrive", async || {
            (self.receiver.messages().len() >= jobs).then_some(())
        })
        .await;
        self.receiver.until_quiet().await;
        front.signal("TERM");
        assert_eq!(front.wait(), Some(0));
        let account = Account::read(&[self.home("front")]).await;
        account.judge_webhooks(&self.receiver.messages());
        assert_eq!((account.pictures(), self.receiver.messages().len()), (jobs, jobs));
        assert_eq!(
            self.store
                .objects()
                .iter()
                .filter(|(name, _)| name.contains("generations/"))
                .count(),
            jobs,
            "one result for each: {:?}",
            self.store.objects()
        );
    }
}

/// Not over before its line is cut; there are seven of them.
fn long() -> Value {
    json!({"width": 256, "height": 256, "num_inference_steps": 60})
}

/// What a server by itself makes of it.
async fn solo() -> Vec<u8> {
    let server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "120")]);
    let begin = tokio::time::Instant::now();
    let made = get(&picture(&server, long()).await).await;
    println!("alone it takes {:.1?}", begin.elapsed());
    assert_eq!(made.status, 200);
    made.body.to_vec()
}

/// Waits until a machine that was away is heard again, and has nothing to do.
async fn until_idle(front: &TestServer, name: &str) {
    until("it is heard and has nothing to do", async || {
        let idle = |node: &Value| node["name"] == name && node["jobs"]["running"] == 0;
        nodes(front).await.iter().any(idle).then_some(())
    })
    .await;
}

/// Waits until nothing has come from a machine for a while.
async fn until_gone(front: &TestServer, name: &str) {
    until("it is not heard any more", async || {
        let found = nodes(front).await.iter().any(|node| node["name"] == name);
        (!found).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_line_is_cut_in_the_middle_of_a_job_it_has_one_end_and_its_picture() {
    if !is_inside(concat!(
        "cluster_network::whichever_line_is_cut_",
        "in_the_middle_of_a_job_it_has_one_end_and_its_picture"
    )) {
        return;
    }
    let Some(mut scene) = Scene::new().await else {
        return;
    };
    scene.solo = solo().await;
    let front = scene.front(false);
    let (far, near) = (Namespace::new(2), Namespace::new(3));
    let worker = scene.worker(&far, "far");
    until_workers(&front, 1).await;
    worker_from_bucket(&scene, &front, &far).await;
    front_from_broker(&scene, &front, &worker).await;
    only_worker_from_all(&scene, &front, &far).await;
    let _other = scene.worker(&near, "near");
    until_workers(&front, 2).await;
    one_of_two_workers_from_all(&scene, &front, (&far, &worker), &near).await;
    // The same machine once more, which runs jobs now.
    front.kill();
    let front = scene.front(true);
    until_workers(&front, 3).await;
    working_front_from_broker(&scene, &front).await;
    scene.judge(front, 7).await;
}

/// The worker keeps its job and its picture until the bucket is there again.
async fn worker_from_bucket(scene: &Scene, front: &TestServer, far: &Namespace) {
    let id = scene.long_job(front).await;
    far.cut(scene.store_at);
    until("its picture is made", async || {
        let progress = job(front, &id).await["progress"].clone();
        (progress["done"] == progress["total"] && progress["done"].is_u64()).then_some(())
    })
    .await;
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(
        job(front, &id).await["state"],
        "running",
        "it waits for the bucket"
    );
    far.heal(scene.store_at);
    assert_eq!(scene.ended(front, &id).await, 1);
}

/// Who answers callers hears the end later, and what it accepts meanwhile waits.
async fn front_from_broker(scene: &Scene, front: &TestServer, worker: &TestWorker) {
    let id = scene.long_job(front).await;
    scene.front_at.cut(scene.broker_at);
    until_gone(front, &worker.name()).await;
    let webhook = format!("http://{}/", scene.receiver_at);
    let waiting = begun(front, json!({"webhook": webhook, "seed": 9})).await;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(job(front, &waiting).await["state"], "queued");
    scene.front_at.heal(scene.broker_at);
    assert_eq!(scene.ended(front, &id).await, 1, "its worker was never silent");
    until("what was accepted meanwhile is made", async || {
        (job(front, &waiting).await["state"] == "succeeded").then_some(())
    })
    .await;
    until_idle(front, &worker.name()).await;
}

/// Nobody else can go on with it, so that the worker does when its line is back.
async fn only_worker_from_all(scene: &Scene, front: &TestServer, far: &Namespace) {
    let id = scene.long_job(front).await;
    scene.cut_all(far);
    tokio::time::sleep(SILENCE * 2).await;
    scene.heal_all(far);
    scene.ended(front, &id).await;
}

/// The other one makes it, and what the one that was away has made meanwhile changes nothing.
async fn one_of_two_workers_from_all(
    scene: &Scene,
    front: &TestServer,
    (place, worker): (&Namespace, &TestWorker),
    other: &Namespace,
) {
    // So it is known who runs it.
    scene.cut_all(other);
    let id = scene.long_job(front).await;
    scene.cut_all(place);
    scene.heal_all(other);
    assert_eq!(scene.ended(front, &id).await, 2, "the other one has made it");
    until_gone(front, &worker.name()).await;
    scene.heal_all(place);
    until_idle(front, &worker.name()).await;
    assert_eq!(scene.ended(front, &id).await, 2);
}

/// Both sides bring it to an end, and that of the machine that accepted it counts: it has told it already.
async fn working_front_from_broker(scene: &Scene, front: &TestServer) {
    let webhook = json!(format!("http://{}/", scene.receiver_at));
    let mut own = long();
    (own["webhook"], own["loadbalancer"]) = (webhook, json!("no"));
    let own = begun(front, own).await;
    until("it has its hands full", async || {
        (job(front, &own).await["state"] == "running").then_some(())
    })
    .await;
    let id = scene.long_job(front).await;
    let told = scene.receiver.messages().len();
    scene.front_at.cut(scene.broker_at);
    for id in [&own, &id] {
        scene.ended(front, id).await;
    }
    until("both ends are told while the line is cut", async || {
        (scene.receiver.messages().len() == told + 2).then_some(())
    })
    .await;
    scene.front_at.heal(scene.broker_at);
    until_workers(front, 3).await;
    scene.ended(front, &id).await;
}
