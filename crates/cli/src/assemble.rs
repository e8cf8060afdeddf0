//! The one place where everything is put together: catalogue, engine, jobs, storage, service, HTTP.
//!
//! Another store, queue or device is another line here and nowhere else.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderValue;
use pentimento_api::{
    ApiConfig, AppState, CorsOrigins, DialectBodies, LeastSpeed, ModelsLabConfig, RefusedConnections,
    RestartSwitch, build_admin_router, build_router,
};
use pentimento_catalog::{Catalog, ModelEntry, ModelKind};
use pentimento_engine::{
    DEFAULT_MODEL_MEMORY, DeviceReport, EngineHandle, EngineThread, PipelineExecutor, TokenCounter,
};
use pentimento_hub::Hub;
use pentimento_jobs::{JobLimits, JobQueue, JobStore, Outbox, Recovery, SqliteJobs};
use pentimento_service::image_codec::{ManifestSigner, Marks};
use pentimento_service::{
    AddressGuard, KeyFile, KeyRing, SafetyRule, SafetySettings, Service, ServiceConfig, ServiceParts,
    WebhookSecret, image_fetcher, webhook_sender,
};
use pentimento_storage::{ImageStore, LinkSigner, StorageConfig, secret_file};
use pentimento_types::{
    Clock, MemoryBudget, MemoryLedger, ModelId, SystemClock, describe_chain, read_regular,
};
use tokio::net::TcpListener;

use crate::cluster::{self, Joined, Joining, Membership, Part};
use crate::cluster_secrets::{LINK_SECRET, Secrets, WEBHOOK_SECRET};
use crate::config::{ByteSize, Config, HttpConfig, SafetyChoice, WebhookSecretSetting};
use crate::data_folder::DataFolder;
use crate::device::{self, OpenDevices};
use crate::machine::memory_total;
use crate::open_files::{fit_connections, room_for_connections};
use crate::process;
use crate::telemetry::Telemetry;

/// Jobs that wait or run at once; one more is told to come back later.
const UNFINISHED_JOBS: usize = 256;
/// Ended jobs that can still be asked for.
const REMEMBERED_JOBS: usize = 10_000;
/// How long the worker may be silent before its job is claimed again; machines of a cluster have a setting for it.
const LEASE: Duration = Duration::from_secs(60);
/// How long an ended job can be asked for, and its pictures are kept: ModelsLab's links live for a day.
const KEEP_JOBS: Duration = Duration::from_secs(24 * 3600);
/// The database of the jobs, in the data folder.
const JOBS_FILE: &str = "jobs.sqlite";
/// Time between two looks for pictures and jobs that can be deleted.
const SWEEP: Duration = Duration::from_secs(60);
/// The largest picture that is fetched from a caller's address.
const MAX_FETCHED_BYTES: u64 = 30 * 1024 * 1024;
/// Room for finished pictures on their way to callers: on the smallest machine, too, for the largest that can be made.
const LEAST_REPLY_MEMORY: u64 = 256 << 20;
/// How long finished pictures wait for room on the disk.
const SAVE_PATIENCE: Duration = Duration::from_secs(600);
/// A job that ended the process twice will do it a third time.
const ATTEMPTS: u32 = 2;

/// The models that can be named.
pub(crate) fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    let catalog = match &config.models {
        Some(path) => Catalog::load(path)?,
        None => Catalog::embedded_only(),
    };
    if let Some(name) = &config.safety_model {
        let found = catalog.resolve(&ModelId::new(name), ModelKind::SafetyChecker);
        found.with_context(|| format!("safety_model = \"{name}\""))?;
    }
    if let Some(name) = &config.prompt_enhancer {
        let found = catalog.resolve(&ModelId::new(name), ModelKind::PromptEnhancer);
        found.with_context(|| format!("prompt_enhancer = \"{name}\""))?;
    }
    Ok(catalog)
}

/// Where the files of models are.
pub(crate) fn hub(config: &Config) -> anyhow::Result<Hub> {
    Ok(Hub::new(config.hub.settings(&config.data), clock())?)
}

/// The keys of the settings, and those of the data folder, which need not be there yet.
pub(crate) fn key_ring(config: &Config) -> anyhow::Result<KeyRing> {
    let configured = config.http.keys.iter();
    let configured = configured.map(|key| (key.label.clone(), key.secret.expose().to_owned()));
    Ok(KeyRing::new(configured)
        .with_defaults(config.http.key_limits)
        .with_file(KeyFile::in_folder(&config.data))?)
}

/// What each use of memory may take, on all devices together.
pub(crate) fn memory_budget(config: &Config, gpus: &[u64]) -> MemoryBudget {
    let sum = |part: fn(MemoryBudget) -> u64| {
        let parts = gpus.iter().map(|gpu| part(device_budget(config, Some(*gpu))));
        parts.fold(0, u64::saturating_add)
    };
    let all = device_budget(config, None);
    if gpus.is_empty() {
        return all;
    }
    MemoryBudget {
        weights: sum(|budget| budget.weights),
        states: sum(|budget| budget.states),
        ..all
    }
}

/// What each use of memory may take on one device. On a system that does not say how much it has, only weights are bounded. `gpu` is
/// what may be used of a GPU's memory, where weights, texts and activations are then: the weights' share leaves room for the others,
/// and whether a forward fits is asked of the device itself.
fn device_budget(config: &Config, gpu: Option<u64>) -> MemoryBudget {
    let total = memory_total();
    let budget = |set: Option<ByteSize>, part: u64, unknown: u64| {
        let share = total.map_or(unknown, |total| total / part);
        set.map_or(share, |ByteSize(bytes)| bytes)
    };
    let weights = match (gpu, config.model_memory) {
        (Some(gpu), Some(ByteSize(set))) => set.min(gpu),
        (Some(gpu), None) => gpu / 10 * 8,
        (None, set) => budget(set, 2, DEFAULT_MODEL_MEMORY),
    };
    MemoryBudget {
        weights,
        states: gpu.map_or_else(|| budget(None, 4, u64::MAX), |gpu| gpu / 10),
        images: budget(config.image_memory, 8, u64::MAX),
        bodies: budget(config.body_memory, 4, u64::MAX),
        replies: budget(None, 16, u64::MAX).max(LEAST_REPLY_MEMORY),
    }
}

/// Says at the start what computes, and in which numbers where that is not what `entries` ask for.
fn tell_devices(opened: &OpenDevices, entries: &[Arc<ModelEntry>]) {
    let OpenDevices {
        devices,
        why_cpu,
        is_surprising,
        left_out,
        policy: _,
    } = opened;
    for (index, device) in devices.iter().enumerate() {
        let report = DeviceReport::of(device);
        match (&report.gpu, why_cpu) {
            (Some(gpu), _) => {
                tracing::info!(
                    index,
                    device = report.name,
                    precision = %report.precision,
                    memory = gpu.budget_bytes,
                    "computes on a GPU"
                );
            }
            (None, why) if *is_surprising => {
                let why = why.as_deref().unwrap_or("this build has no CUDA");
                tracing::warn!(why, "computes on the processor in f32, since no GPU can be used");
            }
            (None, Some(why)) => tracing::info!(why, "computes on the processor, since no GPU can be used"),
            (None, None) => tracing::info!("computes on the processor"),
        }
    }
    let asked = devices
        .first()
        .map(|device| device::not_as_asked(device, entries));
    for model in asked.into_iter().flatten() {
        tracing::warn!(
            model,
            "a model is computed in other numbers than its entry asks for"
        );
    }
    for (device, why) in left_out {
        tracing::warn!(device, why, "a GPU cannot be used; the others are");
    }
}

/// The device threads and the door to them.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) handle: EngineHandle,
    /// What large things hold, in the whole process.
    memory: Arc<MemoryLedger>,
    thread: EngineThread,
}

impl Engine {
    /// Starts it on the chosen devices, for these models.
    pub(crate) fn start(config: &Config, entries: &[Arc<ModelEntry>]) -> anyhow::Result<Self> {
        let opened = device::open(config)?;
        let memory = MemoryLedger::new(memory_budget(config, &opened.gpu_budgets()));
        tell_devices(&opened, entries);
        // What is on a device is in an account of its own, which is a part of the whole.
        let devices = opened.devices.into_iter().map(|device| {
            let gpu = device.gpu().map(|gpu| gpu.budget_bytes() as u64);
            let part = memory.part(device_budget(config, gpu));
            (device, part)
        });
        let executors = PipelineExecutor::on_each(devices, config.model_keep_alive).into_iter();
        let executors = executors.map(|executor| executor.with_max_prompt_tokens(config.max_prompt_tokens));
        let (handle, thread) = pentimento_engine::Engine::start_on(
            executors.collect(),
            opened.policy,
            clock(),
            Arc::clone(&memory),
        )?;
        Ok(Self {
            handle,
            memory,
            thread,
        })
    }

    /// Ends what is still running between two steps, and waits for the thread.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.handle.shutdown(Duration::ZERO).await;
        tokio::task::spawn_blocking(move || self.thread.join()).await??;
        Ok(())
    }
}

/// A server without its socket.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) service: Service,
    pub(crate) engine: Engine,
    pub(crate) router: axum::Router,
    /// Health checks alone.
    pub(crate) admin_router: axum::Router,
    pub(crate) api: ApiConfig,
    pub(crate) refused_connections: RefusedConnections,
    /// Asked by a call of the operator.
    pub(crate) restart: RestartSwitch,
    /// In a cluster, where there is one.
    pub(crate) membership: Option<Membership>,
}

/// Builds the whole server on a data folder; `answers` says whether callers reach it.
pub(crate) async fn everything(
    config: &Config,
    data: &DataFolder,
    (keys, answers): (Arc<KeyRing>, bool),
    telemetry: &Telemetry,
) -> anyhow::Result<Parts> {
    let catalog = Arc::new(catalog(config)?);
    let mut api = api_config(&config.http)?;
    // Before anything counts on them.
    fit_connections(&mut api, room_for_connections().unwrap_or(usize::MAX));
    let engine = Engine::start(config, catalog.entries())?;
    let images = images(config, data.path())?;
    if config.images.is_some() {
        tokio::spawn(look_at_bucket(images.clone()));
    }
    let limits = JobLimits {
        unfinished: UNFINISHED_JOBS,
        finished: REMEMBERED_JOBS,
        finished_bytes: config.job_memory.0,
    };
    let (jobs, recovery) = jobs(data, limits)?;
    let records = records(config, (data, answers), (jobs, limits), (&catalog, &engine)).await?;
    // After the cluster had its say about the secrets.
    let links = LinkSigner::open(&data.path().join(LINK_SECRET))?;
    let webhook_secret = webhook_secret(config, data.path())?;
    let webhooks = webhook_sender(address_guard(config), &webhook_secret);
    let parts = ServiceParts {
        catalog,
        hub: hub(config)?,
        engine: engine.handle.clone(),
        store: records.store,
        queue: records.queue,
        outbox: records.outbox,
        images,
        links: links.clone(),
        fetcher: image_fetcher(address_guard(config), MAX_FETCHED_BYTES),
        webhooks: webhooks.clone(),
        webhook_bodies: Arc::new(DialectBodies::new(api.clone())),
        tokens: TokenCounter::default(),
        memory: Arc::clone(&engine.memory),
        keys: Arc::clone(&keys),
        traces: telemetry.traces(),
        signer: manifest_signer(config)?.map(Arc::new),
        nodes: records.joined.as_ref().map(|(joined, _)| joined.nodes()),
        clock: clock(),
    };
    let service_config = service_config(config, &engine.handle);
    let part = Part {
        answers,
        works: service_config.runs_jobs,
        slots: service_config.running_jobs,
    };
    let service = Service::start(parts, service_config);
    let membership = match records.joined {
        Some((joined, mut secrets)) => {
            secrets.used_by(&links, &webhooks);
            let memory = Arc::clone(&engine.memory);
            Some(joined.speak(&service, memory, (part, secrets)).await)
        }
        None => None,
    };
    service.metrics().recovered(&recovery);
    let memory = Arc::clone(&engine.memory);
    let state = AppState::new(service.clone(), keys, api.clone(), memory);
    let state = state
        .with_lost_log_lines(telemetry.lost_lines())
        .with_process_figures(process::figures);
    let refused_connections = state.refused_connections();
    let restart = state.restart_switch();
    let admin_router = build_admin_router(state.clone());
    let router = build_router(state);
    Ok(Parts {
        service,
        engine,
        router,
        admin_router,
        api,
        refused_connections,
        restart,
        membership,
    })
}

/// Records, queue and outbox, of this machine or of a cluster.
struct Records {
    store: Arc<dyn JobStore>,
    queue: Arc<dyn JobQueue>,
    outbox: Arc<dyn Outbox>,
    joined: Option<(Joined, Secrets)>,
}

async fn records(
    config: &Config,
    (data, answers): (&DataFolder, bool),
    (jobs, limits): (SqliteJobs, JobLimits),
    (catalog, engine): (&Arc<Catalog>, &Engine),
) -> anyhow::Result<Records> {
    let Some(cluster) = &config.cluster else {
        let jobs = Arc::new(jobs);
        return Ok(Records {
            store: Arc::clone(&jobs) as Arc<dyn JobStore>,
            queue: jobs.queue(),
            outbox: jobs,
            joined: None,
        });
    };
    let joining = Joining {
        config: cluster,
        data,
        own: jobs,
        limits,
        catalog: Arc::clone(catalog),
        engine: engine.handle.clone(),
        runs_jobs: config.runs_jobs,
        // As long as any machine may be asked for one, and a day for what is slow to end.
        keep: KEEP_JOBS.max(config.link_ttl) + KEEP_JOBS,
    };
    let joined = cluster::join(joining).await?;
    let mut secrets = Secrets::new(data.path(), (answers, config.webhook_secret.is_some()));
    secrets.agree_at_start(&joined.connection).await?;
    let jobs = Arc::new(joined.cluster.jobs.clone());
    Ok(Records {
        store: Arc::clone(&jobs) as Arc<dyn JobStore>,
        queue: Arc::clone(&joined.cluster.queue),
        outbox: jobs,
        joined: Some((joined, secrets)),
    })
}

/// The jobs of this and of earlier processes. What was wrong with them is told.
fn jobs(data: &DataFolder, limits: JobLimits) -> anyhow::Result<(SqliteJobs, Recovery)> {
    let (jobs, recovery) = SqliteJobs::open(&data.path().join(JOBS_FILE), clock(), limits)?;
    let Recovery {
        unfinished,
        crashed,
        damaged,
        mended_pages,
        damaged_file,
    } = &recovery;
    if *mended_pages > 0 {
        tracing::error!(
            mended_pages,
            "the journal of the jobs was damaged; it is kept beside the new one"
        );
    }
    if let Some(kept) = damaged_file {
        tracing::error!(
            kept = %kept.display(),
            unfinished,
            "the database of the jobs was damaged; what could be read was taken over into a new one"
        );
    }
    if *damaged > 0 {
        tracing::error!(damaged, "records of jobs were damaged and are set aside");
    }
    if *unfinished > 0 {
        tracing::info!(unfinished, crashed, "jobs of before go on");
    }
    Ok((jobs, recovery))
}

/// What webhooks are signed with: as set, or made once and kept in the data folder.
pub(crate) fn webhook_secret(config: &Config, data: &Path) -> anyhow::Result<WebhookSecret> {
    match &config.webhook_secret {
        Some(WebhookSecretSetting(secret)) => Ok(secret.clone()),
        None => Ok(WebhookSecret::new(secret_file(&data.join(WEBHOOK_SECRET))?)),
    }
}

/// The store of the pictures.
pub(crate) fn images(config: &Config, data: &Path) -> anyhow::Result<ImageStore> {
    let place = match &config.images {
        Some(bucket) => StorageConfig::S3(bucket.clone()),
        None => StorageConfig::Folder(data.join("images")),
    };
    Ok(ImageStore::open(&place)?)
}

/// A bucket that does not let us in is told at once, and not with the first request. The server starts all the same: a bucket
/// that is away comes back.
async fn look_at_bucket(images: ImageStore) {
    if let Err(error) = images.check().await {
        tracing::error!(
            error = describe_chain(&error),
            "the bucket for pictures cannot be used; requests fail until it can"
        );
    }
}

fn address_guard(config: &Config) -> AddressGuard {
    if config.allow_private_urls {
        AddressGuard::allowing_private()
    } else {
        AddressGuard::public_only()
    }
}

fn service_config(config: &Config, engine: &EngineHandle) -> ServiceConfig {
    ServiceConfig {
        link_ttl: config.link_ttl,
        keep_jobs: KEEP_JOBS.max(config.link_ttl),
        running_jobs: config.running_jobs.min(engine.status().max_jobs),
        decoding_images: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        max_image_pixels: config.max_image_pixels,
        max_prompt_tokens: config.max_prompt_tokens,
        max_attempts: ATTEMPTS,
        job_deadline: config.job_deadline,
        save_patience: SAVE_PATIENCE,
        lease: config.cluster.as_ref().map_or(LEASE, |cluster| cluster.lease),
        safety: SafetySettings {
            rule: match config.safety_checker {
                SafetyChoice::Auto => SafetyRule::Auto,
                SafetyChoice::Required => SafetyRule::Required,
                SafetyChoice::Off => SafetyRule::Off,
            },
            model: config.safety_model.as_deref().map(ModelId::new),
            threshold: config.safety_threshold_percent * 10,
        },
        marks: marks(config),
        watermark: config.compliance.wants_watermark(),
        prompt_enhancer: config.prompt_enhancer.as_deref().map(ModelId::new),
        sweep_interval: SWEEP,
        runs_jobs: config.runs_jobs,
    }
}

/// What files say of where their pictures come from.
pub(crate) const fn marks(config: &Config) -> Marks {
    Marks {
        parameters: config.write_parameters,
        source_type: config.write_source_type,
    }
}

/// What signs pictures, where the settings say so.
pub(crate) fn manifest_signer(config: &Config) -> anyhow::Result<Option<ManifestSigner>> {
    const LARGEST: u64 = 1 << 20;
    let Some((certificates, key)) = &config.c2pa else {
        return Ok(None);
    };
    let read = |name: &str, path: &Path| {
        read_regular(path, LARGEST).with_context(|| format!("{name}: cannot read {}", path.display()))
    };
    let (certificates, key) = (read("c2pa_certificates", certificates)?, read("c2pa_key", key)?);
    let signer = ManifestSigner::new(&certificates, &key);
    signer.map(Some).context("c2pa_certificates and c2pa_key")
}

/// Answers on the socket until `closed` is ready.
pub(crate) async fn serve(
    listener: TcpListener,
    router: axum::Router,
    (api, refused_connections): (ApiConfig, RefusedConnections),
    closed: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    pentimento_api::serve(listener, router, (&api).into(), refused_connections, closed).await
}

fn api_config(http: &HttpConfig) -> anyhow::Result<ApiConfig> {
    let cors_origins = match http.cors_origins.as_deref() {
        None => CorsOrigins::ByKeys,
        Some([]) => CorsOrigins::None,
        Some([every]) if every == "*" => CorsOrigins::Any,
        Some(origins) => CorsOrigins::Only(
            origins
                .iter()
                .map(|origin| {
                    HeaderValue::from_str(origin).with_context(|| format!("{origin} is not an origin"))
                })
                .collect::<anyhow::Result<_>>()?,
        ),
    };
    Ok(ApiConfig {
        public_url: http.public_url.clone(),
        trust_forwarded: http.trust_forwarded,
        cors_origins,
        rates: http.rates,
        body_timeout: http.body_timeout,
        body_idle_timeout: http.stall,
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        least_speed: LeastSpeed {
            bytes_per_second: http.least_bytes_per_second,
            grace: http.stall,
        },
        max_connections: http.max_connections,
        max_connections_per_address: http.max_connections_per_address,
        // Who listens on an address of this machine is called by it.
        allowed_hosts: std::iter::once(host_of(http.listen.ip()))
            .chain(http.allowed_hosts.iter().cloned())
            .collect(),
        modelslab: ModelsLabConfig {
            strict_http_status: http.modelslab_strict_http_status,
            inline_base64: http.modelslab_inline_base64,
            enhance_prompt: http.modelslab_enhance_prompt,
            hold: http.modelslab_hold,
            ..ModelsLabConfig::new()
        },
        ..ApiConfig::new()
    })
}

/// An address as it stands in `Host`.
fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
