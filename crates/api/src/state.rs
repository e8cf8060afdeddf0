//! What every handler can reach: the use cases, the keys and the settings of this crate. Cheap to clone.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use pentimento_service::{KeyRing, Service};
use pentimento_types::{Clock as _, MemoryLedger, SystemClock};

use crate::body::BodyBudget;
use crate::config::{ApiConfig, BODY_PLACES};

/// Shared by all handlers.
#[derive(Clone, Debug)]
pub struct AppState {
    pub(crate) service: Service,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) bodies: Arc<BodyBudget>,
    /// What large things hold in the whole process.
    pub(crate) memory: Arc<MemoryLedger>,
    /// How many lines of the log nobody took.
    pub(crate) lost_log_lines: Arc<AtomicU64>,
    /// When this server was put together.
    pub(crate) started: SystemTime,
}

impl AppState {
    /// Puts the parts together. The ledger says how much room the bodies of all callers have together, while they arrive
    /// and while they are parsed.
    #[must_use]
    pub fn new(service: Service, keys: KeyRing, config: ApiConfig, ledger: Arc<MemoryLedger>) -> Self {
        Self {
            service,
            keys: Arc::new(keys),
            bodies: Arc::new(BodyBudget::new(
                Arc::clone(&ledger),
                config.max_body_bytes,
                BODY_PLACES,
            )),
            config: Arc::new(config),
            memory: ledger,
            lost_log_lines: Arc::default(),
            started: SystemClock.wall(),
        }
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
