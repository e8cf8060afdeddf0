//! How a call of the operator asks for a restart: whoever runs the router listens, stops in order, and starts anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct RestartSwitch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: Notify,
    /// Whether somebody starts anew.
    is_heeded: AtomicBool,
}

impl RestartSwitch {
    /// Said by who starts anew when asked. Until then nobody can ask.
    pub fn heed(&self) {
        self.0.is_heeded.store(true, Ordering::Relaxed);
    }

    /// Asks; asking twice is asking once. False where nobody would start anew.
    pub(crate) fn ask(&self) -> bool {
        let is_heeded = self.0.is_heeded.load(Ordering::Relaxed);
        if is_heeded {
            self.0.asked.notify_one();
        }
        is_heeded
    }

    /// Returns when somebody has asked, also before this was called.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }
}
