//! What all work on models shares.

use tokio::sync::Semaphore;

use crate::HubSettings;
use crate::checks::Checks;
use crate::client::Client;
use crate::works::Works;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: HubSettings,
    pub(crate) client: Client,
    pub(crate) checks: Checks,
    /// Who may fetch.
    pub(crate) turns: Semaphore,
    pub(crate) works: Works,
}
