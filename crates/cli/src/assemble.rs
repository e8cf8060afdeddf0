//! The one place where everything is put together: catalogue, engine, jobs, storage, service, HTTP.
//!
//! Another store, queue or device is another line here and nowhere else.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderValue;
use pentimento_api::{
    ApiConfig, AppState, CorsOrigins, LeastSpeed, ModelsLabConfig, build_admin_router, build_router,
};
use pentimento_catalog::Catalog;
use pentimento_engine::{
    BatchPolicy, DEFAULT_MODEL_MEMORY, EngineHandle, EngineThread, PipelineExecutor, TokenCounter,
};
use pentimento_hub::Hub;
use pentimento_jobs::{JobStore, MemoryJobs, MemoryLimits};
use pentimento_service::{
    AddressGuard, KeyRing, SafetyRule, SafetySettings, Service, ServiceConfig, ServiceParts, image_fetcher,
};
use pentimento_storage::{ImageStore, LinkSigner, StorageConfig};
use pentimento_types::{Clock, MemoryBudget, MemoryLedger, SystemClock};
use tokio::net::TcpListener;

use crate::config::{ByteSize, Config, ConfigError, DeviceChoice, HttpConfig, SafetyChoice};
use crate::data_folder::DataFolder;
use crate::machine::memory_total;
use crate::telemetry::Telemetry;

/// Jobs that wait or run at once; one more is told to come back later.
const UNFINISHED_JOBS: usize = 256;
/// Ended jobs that can still be asked for.
const REMEMBERED_JOBS: usize = 10_000;
/// How long a worker may be silent before its job is given to another.
const LEASE: Duration = Duration::from_secs(60);
/// How long an ended job can be asked for.
const KEEP_JOBS: Duration = Duration::from_secs(24 * 3600);
/// Time between two looks for pictures and jobs that can be deleted.
const SWEEP: Duration = Duration::from_secs(60);
/// How long pictures are kept: ModelsLab's links live for a day.
const KEEP_PICTURES: Duration = Duration::from_secs(24 * 3600);
/// The largest picture that is fetched from a caller's address.
const MAX_FETCHED_BYTES: u64 = 30 * 1024 * 1024;
/// A job that ended the process twice will do it a third time.
const ATTEMPTS: u32 = 2;

/// The models that can be named.
pub(crate) fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    match &config.models {
        Some(path) => Ok(Catalog::load(path)?),
        None => Ok(Catalog::embedded_only()),
    }
}

/// Where the files of models are.
pub(crate) fn hub(config: &Config) -> anyhow::Result<Hub> {
    Ok(Hub::new(config.hub.settings(&config.data), clock())?)
}

/// What each use of memory may take. On a system that does not say how much it has, only weights are bounded.
pub(crate) fn memory_budget(config: &Config) -> MemoryBudget {
    let total = memory_total();
    let budget = |set: Option<ByteSize>, part: u64, unknown: u64| {
        let share = total.map_or(unknown, |total| total / part);
        set.map_or(share, |ByteSize(bytes)| bytes)
    };
    MemoryBudget {
        weights: budget(config.model_memory, 2, DEFAULT_MODEL_MEMORY),
        states: budget(None, 4, u64::MAX),
        images: budget(config.image_memory, 8, u64::MAX),
        bodies: budget(config.body_memory, 4, u64::MAX),
    }
}

/// The device thread and the door to it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) handle: EngineHandle,
    /// What large things hold, in the whole process.
    memory: Arc<MemoryLedger>,
    thread: EngineThread,
}

impl Engine {
    /// Starts it on the chosen device.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        let memory = MemoryLedger::new(memory_budget(config));
        let (executor, policy) = match config.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => {
                let executor = PipelineExecutor::cpu_keeping(Arc::clone(&memory), config.model_keep_alive);
                (
                    executor.with_max_prompt_tokens(config.max_prompt_tokens),
                    BatchPolicy::cpu(),
                )
            }
            DeviceChoice::Cuda => {
                return Err(ConfigError::Device {
                    device: "cuda".to_owned(),
                }
                .into());
            }
        };
        let (handle, thread) =
            pentimento_engine::Engine::start_within(executor, policy, clock(), Arc::clone(&memory))?;
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
}

/// Builds the whole server on a data folder.
pub(crate) fn everything(config: &Config, data: &DataFolder, telemetry: &Telemetry) -> anyhow::Result<Parts> {
    let catalog = Arc::new(catalog(config)?);
    let engine = Engine::start(config)?;
    let images = ImageStore::open(&StorageConfig::Folder(data.path().join("images")))?;
    let links = LinkSigner::open(&data.path().join("link-secret"))?;
    let limits = MemoryLimits {
        unfinished: UNFINISHED_JOBS,
        finished: REMEMBERED_JOBS,
        finished_bytes: config.job_memory.0,
    };
    let jobs = Arc::new(MemoryJobs::new(clock(), limits));
    let parts = ServiceParts {
        catalog,
        hub: hub(config)?,
        engine: engine.handle.clone(),
        store: Arc::clone(&jobs) as Arc<dyn JobStore>,
        queue: jobs,
        images,
        links,
        fetcher: image_fetcher(address_guard(config), MAX_FETCHED_BYTES),
        tokens: TokenCounter::default(),
        memory: Arc::clone(&engine.memory),
        clock: clock(),
    };
    let service = Service::start(parts, service_config(config, &engine.handle));
    let keys = config
        .http
        .keys
        .iter()
        .map(|key| (key.label.clone(), key.secret.expose().to_owned()));
    let api = api_config(&config.http)?;
    let memory = Arc::clone(&engine.memory);
    let state = AppState::new(service.clone(), KeyRing::new(keys), api.clone(), memory);
    let state = state.with_lost_log_lines(telemetry.lost_lines());
    let admin_router = build_admin_router(state.clone());
    let router = build_router(state);
    Ok(Parts {
        service,
        engine,
        router,
        admin_router,
        api,
    })
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
        keep_pictures: KEEP_PICTURES.max(config.link_ttl),
        keep_jobs: KEEP_JOBS.max(config.link_ttl),
        running_jobs: config.running_jobs.min(engine.status().max_jobs),
        decoding_images: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        max_image_pixels: config.max_image_pixels,
        max_prompt_tokens: config.max_prompt_tokens,
        max_attempts: ATTEMPTS,
        lease: LEASE,
        safety: SafetySettings {
            rule: match config.safety_checker {
                SafetyChoice::Auto => SafetyRule::Auto,
                SafetyChoice::Required => SafetyRule::Required,
                SafetyChoice::Off => SafetyRule::Off,
            },
            threshold: config.safety_threshold_percent * 10,
        },
        sweep_interval: SWEEP,
    }
}

/// Answers on the socket until `closed` is ready.
pub(crate) async fn serve(
    listener: TcpListener,
    router: axum::Router,
    api: ApiConfig,
    closed: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    pentimento_api::serve(listener, router, (&api).into(), closed).await
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
