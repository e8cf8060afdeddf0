//! The only place that tells the time, so that leases, links and fairness can be tested without waiting.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use tokio::sync::Notify;

/// Monotonic time for durations, wall-clock time for what a caller sees, and sleeping.
#[async_trait]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Monotonic; never jumps.
    fn now(&self) -> Instant;
    /// Wall-clock time; may jump.
    fn wall(&self) -> SystemTime;
    /// Returns once [`Clock::now`] has reached `deadline`.
    async fn sleep_until(&self, deadline: Instant);
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// A clock that moves only when it is told to.
#[derive(Clone, Debug)]
pub struct ManualClock {
    start: Instant,
    wall_start: SystemTime,
    elapsed: Arc<Mutex<Duration>>,
    moved: Arc<Notify>,
}

impl ManualClock {
    /// Starts at the given wall-clock time.
    #[must_use]
    pub fn new(wall_start: SystemTime) -> Self {
        Self {
            start: SystemClock.now(),
            wall_start,
            elapsed: Arc::new(Mutex::new(Duration::ZERO)),
            moved: Arc::new(Notify::new()),
        }
    }

    /// Moves both times forward and wakes the sleepers.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
        self.moved.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.elapsed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + *self.lock()
    }

    fn wall(&self) -> SystemTime {
        self.wall_start + *self.lock()
    }

    async fn sleep_until(&self, deadline: Instant) {
        loop {
            let moved = self.moved.notified();
            if self.now() >= deadline {
                return;
            }
            moved.await;
        }
    }
}
