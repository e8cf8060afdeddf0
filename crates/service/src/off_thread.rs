//! Work that takes the processor for milliseconds, such as reading an image, away from the async threads.

use crate::ServiceError;

/// Runs it on a blocking thread. It runs on when the future is dropped. A panic of it is an internal error.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(ServiceError::internal)?
}
