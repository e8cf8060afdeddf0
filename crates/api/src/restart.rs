//! How a call of the operator asks for a restart: whoever runs the router listens, stops in order, and starts anew.

use std::sync::Arc;

use tokio::sync::Notify;

/// Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct RestartSwitch(Arc<Notify>);

impl RestartSwitch {
    /// Asks; asking twice is asking once.
    pub(crate) fn ask(&self) {
        self.0.notify_one();
    }

    /// Returns when somebody has asked, also before this was called.
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}
