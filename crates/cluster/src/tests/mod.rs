//! Against real brokers, of each version that this machine has.

mod broker;
mod faults;
mod forgotten;
mod lost_minutes;
mod names;
mod poison;
mod presence;
mod rounds;
mod secured;
mod stock;
mod streams;
mod suite;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use pentimento_jobs::conformance::sample_job;
use pentimento_jobs::{Inserted, JobLimits, JobStore as _, JobsError, QueueEntry, SqliteJobs};
use pentimento_types::{Clock, Job, JobId, SystemClock};
use tempfile::TempDir;

use self::broker::{Broker, programs};
use crate::{Affinity, Cluster, ClusterParts, ClusterSettings, Connection, Credentials, NodeId, OldestFirst};

const LIMITS: JobLimits = JobLimits::in_number(200, 1000);
/// As the conformance suite has it.
const LEASE: Duration = Duration::from_secs(2);
/// For what certainly comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node, with a folder that outlives it.
struct Node {
    cluster: Cluster,
    folder: Arc<TempDir>,
    id: NodeId,
}

fn settings(broker: &Broker, cluster: &str) -> ClusterSettings {
    ClusterSettings {
        name: cluster.parse().unwrap(),
        lease: LEASE,
        ..ClusterSettings::new(vec![broker.url()], Credentials::None)
    }
}

/// A name that no other test of the process has.
fn new_cluster() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn start(
    settings: ClusterSettings,
    named: (NodeId, Arc<TempDir>),
    bounded: (Arc<dyn Clock>, JobLimits),
) -> Node {
    start_with(settings, named, bounded, (Arc::new(OldestFirst), true)).await
}

async fn start_with(
    settings: ClusterSettings,
    (id, folder): (NodeId, Arc<TempDir>),
    (clock, limits): (Arc<dyn Clock>, JobLimits),
    (affinity, runs_jobs): (Arc<dyn Affinity>, bool),
) -> Node {
    let path = folder.path().join("jobs.sqlite");
    let (own, _) = SqliteJobs::open(&path, Arc::clone(&clock), limits).unwrap();
    let parts = ClusterParts {
        node: id.clone(),
        own,
        folder: folder.path().to_owned(),
        limits,
        connection: Connection::open(settings).await.unwrap(),
        affinity,
        runs_jobs,
        clock,
    };
    let cluster = Cluster::start(parts).await.unwrap();
    Node { cluster, folder, id }
}

/// A node that sees everything, as soon as the broker is there.
async fn node(broker: &Broker, cluster: &str, id: &str) -> Node {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    start(
        settings(broker, cluster),
        (id.parse().unwrap(), folder),
        (clock, LIMITS),
    )
    .await
}

/// A node that takes jobs from callers and runs none.
async fn front(broker: &Broker, cluster: &str, id: &str) -> Node {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let named = (id.parse().unwrap(), folder);
    let parts = (Arc::new(OldestFirst) as Arc<dyn Affinity>, false);
    start_with(settings(broker, cluster), named, (clock, LIMITS), parts).await
}

/// Waits until a node has noticed that its broker is gone.
async fn away(node: &Node) {
    eventually("the line is down", async || {
        (!node.cluster.jobs.shared.connection.is_up()).then_some(())
    })
    .await;
}

impl Node {
    /// The same node after a restart.
    async fn restarted(self, broker: &Broker, cluster: &str) -> Self {
        let Self {
            cluster: old,
            folder,
            id,
        } = self;
        drop(old);
        // The file is closed by the last task that had it.
        SystemClock
            .sleep_until(SystemClock.now() + Duration::from_millis(500))
            .await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        start(settings(broker, cluster), (id, folder), (clock, LIMITS)).await
    }

    async fn submit(&self) -> JobId {
        let mut job = sample_job(JobId::new(), SystemClock.wall());
        job.not_before = None;
        self.submit_job(job).await
    }

    async fn submit_job(&self, job: Job) -> JobId {
        let (id, entry) = (job.id, QueueEntry::of(&job));
        let place = self.cluster.jobs.reserve(&job.owner).unwrap();
        let inserted = self.cluster.jobs.insert(job, place).await.unwrap();
        assert_eq!(inserted, Inserted::New);
        self.cluster.queue.push(entry).await.unwrap();
        id
    }

    async fn get(&self, id: JobId) -> Option<Job> {
        self.cluster.jobs.get(id).await.unwrap()
    }
}

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = SystemClock.now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(SystemClock.now() < end, "it never came: {what}");
        SystemClock
            .sleep_until(SystemClock.now() + Duration::from_millis(50))
            .await;
    }
}

fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}
