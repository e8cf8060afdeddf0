//! Work that waits for a disk, which may be slow or far away, beside the threads that serve everybody.

use crate::HubError;

/// Does it on a thread that may wait. It is done to its end, also when nobody waits for it any more.
pub(crate) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    // A panic is the work's fault, and the end of it.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(HubError::Cancelled))
}
