//! What every handler can reach: the use cases, the keys and the settings of this crate. Cheap to clone.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use pentimento_service::{KeyRing, Rates, Service};
use pentimento_types::{Clock as _, MemoryLedger, SystemClock};

use crate::body::BodyBudget;
use crate::config::{ApiConfig, BODY_PLACES};
use crate::dialects::a1111::{AllOptions, Interrupts, LivePreviews};
use crate::metrics::{Metrics, ProcessFigures};
use crate::restart::RestartSwitch;
use crate::server::RefusedConnections;
use crate::waiting_calls::WaitingCalls;
use crate::watch_seats::WatchSeats;

/// Shared by all handlers.
#[derive(Clone, Debug)]
pub struct AppState {
    pub(crate) service: Service,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) watch_seats: Arc<WatchSeats>,
    pub(crate) waiting_calls: Arc<WaitingCalls>,
    /// What callers of A1111's door have chosen.
    pub(crate) a1111_options: Arc<AllOptions>,
    /// When they have interrupted.
    pub(crate) a1111_interrupts: Arc<Interrupts>,
    /// What they look at.
    pub(crate) a1111_previews: Arc<LivePreviews>,
    /// What large things hold in the whole process.
    pub(crate) memory: Arc<MemoryLedger>,
    /// How many lines of the log nobody took.
    pub(crate) lost_log_lines: Arc<AtomicU64>,
    /// What the system says of this process.
    pub(crate) process: fn() -> ProcessFigures,
    /// Asks for a restart.
    pub(crate) restart: RestartSwitch,
    /// When this server was put together.
    pub(crate) started: SystemTime,
}

impl AppState {
    /// Puts the parts together. The ledger says how much room the bodies of all callers have together, while they arrive
    /// and while they are parsed.
    #[must_use]
    pub fn new(
        service: Service,
        keys: impl Into<Arc<KeyRing>>,
        config: ApiConfig,
        ledger: Arc<MemoryLedger>,
    ) -> Self {
        let keys = keys.into();
        Self {
            metrics: Arc::new(Metrics::new(&service)),
            service,
            keys,
            rates: Arc::new(Rates::new(config.rates, Arc::new(SystemClock))),
            bodies: Arc::new(BodyBudget::new(
                Arc::clone(&ledger),
                config.max_body_bytes,
                BODY_PLACES,
            )),
            watch_seats: WatchSeats::among(config.max_connections),
            waiting_calls: Arc::default(),
            config: Arc::new(config),
            a1111_options: Arc::default(),
            a1111_interrupts: Arc::default(),
            a1111_previews: Arc::default(),
            memory: ledger,
            lost_log_lines: Arc::default(),
            process: ProcessFigures::default,
            restart: RestartSwitch::default(),
            started: SystemClock.wall(),
        }
    }

    /// The counter of connections that are refused, for whoever runs the router on a socket.
    #[must_use]
    pub fn refused_connections(&self) -> RefusedConnections {
        self.metrics.refused_connections.clone()
    }

    /// What a call of the operator asks for a restart with, for whoever can do it.
    #[must_use]
    pub fn restart_switch(&self) -> RestartSwitch {
        self.restart.clone()
    }

    /// The same with somebody who asks the system about this process.
    #[must_use]
    pub fn with_process_figures(self, process: fn() -> ProcessFigures) -> Self {
        Self { process, ..self }
    }

    /// The same with the counter of whoever writes the log.
    #[must_use]
    pub fn with_lost_log_lines(self, lost_log_lines: Arc<AtomicU64>) -> Self {
        Self {
            lost_log_lines,
            ..self
        }
    }
}
