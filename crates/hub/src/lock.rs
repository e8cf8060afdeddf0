//! One writer of a file at a time, among all processes: the same lock files that Python's `huggingface_hub` takes.

use std::fs::TryLockError;
use std::path::Path;
use std::time::Duration;

use crate::HubError;

/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: std::fs::File,
}

impl FileLock {
    /// Takes the lock, and calls `waits` once when somebody else has it.
    pub(crate) async fn take(path: &Path, waits: impl FnOnce()) -> Result<Self, HubError> {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).map_err(HubError::disk("make a folder of its cache", folder))?;
        }
        let mut options = fs_err::OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(path);
        let file = file
            .map_err(HubError::disk("make a lock of its cache", path))?
            .into_parts()
            .0;
        let mut waits = Some(waits);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(HubError::disk("lock a file of its cache", path)(error));
                }
            }
        }
    }
}
