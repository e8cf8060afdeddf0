//! Whose picture is being enlarged, and who waits for that.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Callers that wait for the one whose picture is being enlarged. One more is told to come back.
const WAITING: usize = 8;

/// Who enlarges.
#[derive(Debug)]
pub(crate) struct Enlarging {
    pub(crate) places: Arc<Semaphore>,
    pub(crate) turn: Arc<Semaphore>,
}

impl Default for Enlarging {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(1 + WAITING)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}
