//! What the HTTP side has done, and the one registry of all numbers of the process.
//!
//! Invariant: a label is a word of ours: a path as it is written in the routes, a method of a list, a kind of error.
//! Nothing that a caller sends becomes one, or the number of series would be the callers' to choose.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pentimento_service::{RateBucket, RateExceeded, Service, ServiceStatus};
use pentimento_types::{ErrorKind, MemoryLedger, MemoryUse};
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::server::RefusedConnections;

/// A counter of seconds.
type Seconds = Counter<f64, AtomicU64>;

/// What the system says of this process; None where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Time of all processors that it has used.
    pub cpu: Option<Duration>,
    /// Memory that it holds, in bytes.
    pub resident_bytes: Option<u64>,
    /// Files and sockets that it has open.
    pub open_files: Option<u64>,
    /// How many it may have open.
    pub max_open_files: Option<u64>,
}

/// What is looked up at the moment of a scrape.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) status: ServiceStatus,
    pub(crate) queue_time: Duration,
    pub(crate) memory: &'a MemoryLedger,
    pub(crate) lost_log_lines: u64,
    pub(crate) keys_are_stale: bool,
    pub(crate) started: SystemTime,
    pub(crate) process: ProcessFigures,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refusal {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Limited {
    bucket: &'static str,
    by: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Use {
    r#use: &'static str,
}

/// All numbers. Those of lower crates are in the registry only.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Locked while a page is written: one at a time is enough.
    registry: Mutex<Registry>,
    calls: Family<Call, Counter>,
    call_seconds: Family<Route, Histogram, fn() -> Histogram>,
    refused: Family<Refusal, Counter>,
    limited: Family<Limited, Counter>,
    pub(crate) refused_connections: RefusedConnections,
    looked_up: LookedUp,
}

/// Set at each scrape.
#[derive(Debug, Default)]
struct LookedUp {
    jobs: Family<State, Gauge>,
    jobs_limit: Gauge,
    queue_seconds: Gauge<f64, AtomicU64>,
    engine_jobs: Gauge,
    engine_rows: Gauge,
    ready: Gauge,
    models_resident: Gauge,
    held: Family<Use, Gauge>,
    budget: Family<Use, Gauge>,
    lost_log_lines: Counter,
    stale_keys: Gauge,
    cpu_seconds: Seconds,
    resident_bytes: Gauge,
    open_files: Gauge,
    max_open_files: Gauge,
    start_seconds: Gauge<f64, AtomicU64>,
}

/// How a page of metrics is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format, 0.0.4.
    Prometheus,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// From a millisecond of a poll to a minute of a large picture.
fn of_calls() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    ])
}

impl Metrics {
    pub(crate) fn new(service: &Service) -> Self {
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("pentimento");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The program", build);
        service.register_metrics(own);
        let metrics = Self {
            registry: Mutex::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(of_calls),
            refused: Family::default(),
            limited: Family::default(),
            refused_connections: RefusedConnections::default(),
            looked_up: LookedUp::default(),
        };
        // There from the start: what appears with its first event has no rise that an alert could see.
        for kind in [ErrorKind::Internal, ErrorKind::Overloaded] {
            let kind = kind.as_str();
            drop(metrics.refused.get_or_create(&Refusal { kind }));
        }
        for (bucket, by) in [(RateBucket::Calls, "key"), (RateBucket::Calls, "address")] {
            let bucket = bucket.as_str();
            drop(metrics.limited.get_or_create(&Limited { bucket, by }));
        }
        own.register(
            "http_requests",
            "Calls that were answered, by the path as it is written in the routes",
            metrics.calls.clone(),
        );
        own.register_with_unit(
            "http_request",
            "Time until a reply began",
            Unit::Seconds,
            metrics.call_seconds.clone(),
        );
        own.register(
            "http_refused",
            "Calls that were refused or failed, by the kind of error",
            metrics.refused.clone(),
        );
        own.register(
            "http_rate_limited",
            "Calls that were refused because their caller calls too often",
            metrics.limited.clone(),
        );
        metrics.refused_connections.register(own);
        metrics.looked_up.register(own);
        metrics.looked_up.register_process(&mut registry);
        Self {
            registry: Mutex::new(registry),
            ..metrics
        }
    }

    /// A call was answered.
    pub(crate) fn answered(&self, (route, method): (String, &'static str), status: u16, time: Duration) {
        let call = Call {
            route: route.clone(),
            method,
            status,
        };
        self.calls.get_or_create(&call).inc();
        let seconds = self.call_seconds.get_or_create(&Route { route, method });
        seconds.observe(time.as_secs_f64());
    }

    /// A call failed, by whoever's fault.
    pub(crate) fn refused(&self, kind: ErrorKind) {
        let kind = kind.as_str();
        self.refused.get_or_create(&Refusal { kind }).inc();
    }

    /// A caller has used up its bucket.
    pub(crate) fn rate_limited(&self, exceeded: &RateExceeded) {
        let limited = Limited {
            bucket: exceeded.bucket.as_str(),
            by: exceeded.of,
        };
        self.limited.get_or_create(&limited).inc();
    }

    /// All numbers as text.
    pub(crate) fn page(&self, snapshot: &Snapshot<'_>, format: Format) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.looked_up.set(snapshot);
        let mut page = String::new();
        let written = match format {
            Format::OpenMetrics => text::encode(&mut page, &registry),
            Format::Prometheus => prometheus_text::encode(&mut page, &registry),
        };
        if written.is_err() {
            tracing::error!("the metrics could not be written");
        }
        page
    }
}

impl LookedUp {
    fn register(&self, own: &mut Registry) {
        own.register("jobs", "Unfinished jobs, by where they are", self.jobs.clone());
        own.register(
            "jobs_limit",
            "Unfinished jobs that are taken",
            self.jobs_limit.clone(),
        );
        own.register_with_unit(
            "queue_time",
            "How long a job that came now would wait, as far as can be told",
            Unit::Seconds,
            self.queue_seconds.clone(),
        );
        own.register("engine_jobs", "Jobs inside the engine", self.engine_jobs.clone());
        own.register(
            "engine_rows",
            "Rows of the UNet that the jobs inside the engine bring",
            self.engine_rows.clone(),
        );
        own.register("ready", "Whether requests are served, 1 or 0", self.ready.clone());
        own.register(
            "models_resident",
            "Checkpoints in memory",
            self.models_resident.clone(),
        );
        own.register_with_unit(
            "memory_held",
            "Memory that is held, by what for",
            Unit::Bytes,
            self.held.clone(),
        );
        own.register_with_unit(
            "memory_budget",
            "Memory that may be held, by what for",
            Unit::Bytes,
            self.budget.clone(),
        );
        own.register(
            "log_lost_lines",
            "Lines of the log that nobody took",
            self.lost_log_lines.clone(),
        );
        own.register(
            "keys_stale",
            "Whether the key file cannot be read, so that older keys go on, 1 or 0",
            self.stale_keys.clone(),
        );
    }

    /// Under the names that every board for processes knows.
    fn register_process(&self, registry: &mut Registry) {
        let process = registry.sub_registry_with_prefix("process");
        process.register_with_unit(
            "cpu",
            "Time of all processors that the process has used",
            Unit::Seconds,
            self.cpu_seconds.clone(),
        );
        process.register_with_unit(
            "resident_memory",
            "Memory that the process holds",
            Unit::Bytes,
            self.resident_bytes.clone(),
        );
        process.register(
            "open_fds",
            "Files and sockets that are open",
            self.open_files.clone(),
        );
        process.register(
            "max_fds",
            "Files and sockets that may be open",
            self.max_open_files.clone(),
        );
        process.register_with_unit(
            "start_time",
            "When the server was put together, since 1970",
            Unit::Seconds,
            self.start_seconds.clone(),
        );
    }

    fn set(&self, now: &Snapshot<'_>) {
        let ServiceStatus {
            ready, jobs, engine, ..
        } = &now.status;
        for (state, count) in [("queued", jobs.queued), ("running", jobs.running)] {
            self.jobs.get_or_create(&State { state }).set(whole(count as u64));
        }
        self.jobs_limit.set(whole(jobs.limit as u64));
        self.queue_seconds.set(now.queue_time.as_secs_f64());
        self.engine_jobs.set(whole(engine.jobs as u64));
        self.engine_rows.set(i64::from(engine.rows));
        self.ready.set(i64::from(*ready));
        self.models_resident
            .set(whole(engine.resident_models.len() as u64));
        for usage in MemoryUse::ALL {
            let label = Use {
                r#use: usage.as_str(),
            };
            self.held
                .get_or_create(&label)
                .set(whole(now.memory.held(*usage)));
            let limit = now.memory.limit(*usage);
            // Without a bound there is no number to show.
            if limit != u64::MAX {
                self.budget.get_or_create(&label).set(whole(limit));
            }
        }
        self.lost_log_lines
            .inner()
            .store(now.lost_log_lines, Ordering::Relaxed);
        self.stale_keys.set(i64::from(now.keys_are_stale));
        let process = now.process;
        let cpu = process.cpu.unwrap_or_default().as_secs_f64();
        self.cpu_seconds.inner().store(cpu.to_bits(), Ordering::Relaxed);
        self.resident_bytes
            .set(whole(process.resident_bytes.unwrap_or_default()));
        self.open_files.set(whole(process.open_files.unwrap_or_default()));
        self.max_open_files
            .set(whole(process.max_open_files.unwrap_or_default()));
        let started = now.started.duration_since(SystemTime::UNIX_EPOCH);
        self.start_seconds.set(started.unwrap_or_default().as_secs_f64());
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
