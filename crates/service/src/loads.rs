//! Loads that were asked for without a job: how many there may be at once, and who has begun one.

use std::sync::Arc;

use pentimento_types::KeyedSemaphores;
use tokio::sync::Semaphore;

/// Models that are brought into memory at once without a job; each takes the disk's whole rate.
const LOADS_AT_ONCE: usize = 2;

/// The loads that were asked for without a job.
#[derive(Debug)]
pub(crate) struct Loads {
    /// Who has begun one without waiting for its end, by the model's name.
    pub(crate) begun: KeyedSemaphores<String>,
    /// Those at once. A load runs on when its caller goes away, so it holds its seat itself.
    pub(crate) seats: Arc<Semaphore>,
    /// One at a time for each model; the next finds it in memory.
    pub(crate) turns: KeyedSemaphores<String>,
}

impl Default for Loads {
    fn default() -> Self {
        Self {
            begun: KeyedSemaphores::default(),
            seats: Arc::new(Semaphore::new(LOADS_AT_ONCE)),
            turns: KeyedSemaphores::default(),
        }
    }
}
