//! This machine's part in a cluster: how it gets in, what it tells the others of itself, and what it does with their news.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_trait::async_trait;
use pentimento_catalog::{Catalog, ModelKind};
use pentimento_cluster::{
    Announcement, Announcer, Cluster, ClusterParts, ClusterSettings, Connection, Credentials, Member, NodeId,
    Presence, ResidentFirst, Stock,
};
use pentimento_engine::EngineHandle;
use pentimento_jobs::{JobLimits, QueueEntry, SqliteJobs};
use pentimento_service::{NamedModels, Node, Nodes, Service};
use pentimento_types::{Clock, JobId, MemoryLedger, MemoryUse, ModelId, Progress, SystemClock, read_regular};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::cluster_secrets::Secrets;
use crate::config::{ClusterConfig, ClusterCredentials};
use crate::data_folder::DataFolder;

/// The name of this machine in the data folder, made on the first start.
const NODE_FILE: &str = "node-id";
/// No token, seed or file of credentials comes near it.
const LARGEST_SECRET: u64 = 64 << 10;

/// What a machine brings that joins.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    pub(crate) config: &'a ClusterConfig,
    pub(crate) data: &'a DataFolder,
    pub(crate) own: SqliteJobs,
    pub(crate) limits: JobLimits,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) engine: EngineHandle,
    pub(crate) runs_jobs: bool,
    pub(crate) keep: Duration,
}

/// A machine that has joined, before it has a service.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) cluster: Cluster,
    pub(crate) connection: Connection,
    presence: Arc<Presence>,
    shelf: Arc<Shelf>,
}

/// What goes on while a machine is in a cluster; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    presence: Arc<Presence>,
    _tasks: JoinSet<()>,
}

/// How this machine takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) answers: bool,
    pub(crate) works: bool,
    pub(crate) slots: usize,
}

/// Connects and puts this machine's jobs among the others'.
pub(crate) async fn join(joining: Joining<'_>) -> anyhow::Result<Joined> {
    let Joining {
        config,
        data,
        own,
        limits,
        catalog,
        engine,
        runs_jobs,
        keep,
    } = joining;
    let settings = settings(config, keep)?;
    let node =
        NodeId::in_file(&data.path().join(NODE_FILE)).context("the name of this machine in the cluster")?;
    let connection = Connection::open(settings)
        .await
        .context("cannot join the cluster")?;
    let shelf = Arc::new(Shelf {
        catalog,
        engine,
        models: Mutex::default(),
    });
    let cluster = Cluster::start(ClusterParts {
        node: node.clone(),
        own,
        folder: data.path().to_owned(),
        limits,
        connection: connection.clone(),
        affinity: Arc::new(ResidentFirst::new(Arc::clone(&shelf) as Arc<dyn Stock>)),
        runs_jobs,
        clock: Arc::new(SystemClock),
    });
    let cluster = cluster.await?;
    let presence = Arc::new(Presence::new(node.clone(), connection.clone()));
    tracing::info!(%node, connected = connection.is_up(), "this machine is in a cluster");
    Ok(Joined {
        cluster,
        connection,
        presence,
        shelf,
    })
}

/// Whether the broker answers. One that does not let this machine in is an error.
pub(crate) async fn reach(config: &ClusterConfig) -> anyhow::Result<bool> {
    let settings = settings(config, Duration::from_secs(3600))?;
    let connection = Connection::open(settings)
        .await
        .context("cannot join the cluster")?;
    Ok(connection.is_up())
}

fn settings(config: &ClusterConfig, keep: Duration) -> anyhow::Result<ClusterSettings> {
    let read = |name: &'static str, path: &Path| {
        let bytes = read_regular(path, LARGEST_SECRET)
            .with_context(|| format!("{name}: cannot read {}", path.display()))?;
        let text =
            String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name}: {} is no text", path.display()))?;
        Ok::<_, anyhow::Error>(text.trim().to_owned())
    };
    let credentials = match &config.credentials {
        ClusterCredentials::None => Credentials::None,
        ClusterCredentials::Token(token) => Credentials::Token(token.expose().to_owned()),
        ClusterCredentials::TokenFile(path) => Credentials::Token(read("cluster_token_file", path)?),
        ClusterCredentials::NkeyFile(path) => Credentials::NkeySeed(read("cluster_nkey_file", path)?),
        ClusterCredentials::File(path) => Credentials::File(path.clone()),
    };
    let settings = ClusterSettings {
        ca: config.ca.clone(),
        name: config.name.parse()?,
        replicas: config.replicas,
        streams: config.streams,
        lease: config.lease,
        keep,
        ..ClusterSettings::new(config.servers.clone(), credentials)
    };
    settings.check()?;
    Ok(settings)
}

impl Joined {
    /// The others, for the service.
    pub(crate) fn nodes(&self) -> Arc<dyn Nodes> {
        Arc::new(Others(Arc::clone(&self.presence)))
    }

    /// Begins to speak for a service, and to tell it what is heard.
    pub(crate) async fn speak(
        self,
        service: &Service,
        memory: Arc<MemoryLedger>,
        (part, secrets): (Part, Secrets),
    ) -> Membership {
        let voice = Voice {
            service: service.clone(),
            memory,
            shelf: self.shelf,
            part,
        };
        self.presence.announce(Arc::new(voice)).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(secrets.keep_agreed(self.connection));
        let (mut changes, service) = (self.cluster.jobs.changes(), service.clone());
        tasks.spawn(async move {
            loop {
                match changes.recv().await {
                    Ok(job) => service.heard_of(&job),
                    // What was missed is in the records, which whoever waits for a job looks at.
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "news of jobs come faster than they are heard")
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Membership {
            presence: self.presence,
            _tasks: tasks,
        }
    }
}

impl Membership {
    /// Says that this machine goes.
    pub(crate) async fn leave(self) {
        self.presence.leave().await;
    }
}

/// Which models are on this machine.
#[derive(Debug)]
struct Shelf {
    catalog: Arc<Catalog>,
    engine: EngineHandle,
    /// Catalogue names of those whose files are here.
    models: Mutex<HashSet<String>>,
}

impl Shelf {
    fn models(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock for Shelf {
    fn resident(&self) -> HashSet<String> {
        self.engine.resident_models().into_iter().collect()
    }

    fn can_load(&self, model: &ModelId) -> Option<String> {
        let entry = self.catalog.resolve(model, ModelKind::Checkpoint).ok()?;
        self.models().contains(&entry.name).then(|| entry.name.clone())
    }

    fn can_run(&self, entry: &QueueEntry) -> bool {
        // What a catalogue does not know or cannot put together is for a machine with another one.
        let Ok(named) = NamedModels::without_prompts(&self.catalog, &entry.model, &entry.beside) else {
            return false;
        };
        let models = self.models();
        named
            .entries()
            .iter()
            .all(|(_, needed)| models.contains(&needed.name))
    }

    fn now(&self) -> SystemTime {
        SystemClock.wall()
    }
}

/// What this machine says of itself.
#[derive(Debug)]
struct Voice {
    service: Service,
    memory: Arc<MemoryLedger>,
    shelf: Arc<Shelf>,
    part: Part,
}

#[async_trait]
impl Announcer for Voice {
    async fn announcement(&self) -> Announcement {
        let status = self.service.status().await;
        let devices = self.service.devices();
        let names: Vec<&str> = devices.iter().map(|device| &*device.report.name).collect();
        // All of one machine compute in the same numbers.
        let precision = devices.first().map(|device| device.report.precision.to_string());
        let models = self.service.models_here().await;
        *self.shelf.models() = models.iter().cloned().collect();
        let made = self.service.made();
        Announcement {
            answers: self.part.answers,
            works: self.part.works && status.outage.is_none() && status.engine.healthy,
            draining: status.stopping,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: names.join(", "),
            precision: precision.unwrap_or_default(),
            memory_bytes: self.memory.limit(MemoryUse::Weights),
            held_bytes: self.memory.held(MemoryUse::Weights),
            running: status.engine.jobs,
            slots: self.part.slots,
            images: made.images,
            device_milliseconds: u64::try_from(made.device_time.as_millis()).unwrap_or(u64::MAX),
            resident_models: status.engine.resident_models,
            models: Some(models),
        }
    }

    fn heard_progress(&self, job: JobId, attempt: u32, progress: Progress) {
        self.service.heard_progress(job, attempt, progress);
    }
}

/// The others, as the service asks for them.
#[derive(Debug)]
struct Others(Arc<Presence>);

impl Nodes for Others {
    fn all(&self) -> Vec<Node> {
        let own = self.0.node();
        self.0
            .live()
            .into_iter()
            .map(|member| node(member, own))
            .collect()
    }

    fn are_heard(&self) -> bool {
        self.0.is_connected()
    }

    fn tell_progress(&self, id: JobId, attempt: u32, progress: Progress) {
        self.0.tell_progress(id, attempt, progress);
    }
}

fn node(member: Member, own: &NodeId) -> Node {
    let Member { node, says, heard } = member;
    Node {
        is_here: node == *own,
        name: node.to_string(),
        answers: says.answers,
        works: says.works,
        draining: says.draining,
        version: says.version,
        device: says.device,
        precision: says.precision,
        memory_bytes: says.memory_bytes,
        held_bytes: says.held_bytes,
        running: says.running,
        slots: says.slots,
        images: says.images,
        device_milliseconds: says.device_milliseconds,
        resident_models: says.resident_models,
        models: says.models,
        heard_seconds_ago: heard.as_secs(),
    }
}
