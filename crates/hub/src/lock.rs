//! One writer of a file at a time, among all processes: the same lock files that Python's `huggingface_hub` takes.

use std::fs::TryLockError;
use std::path::Path;
use std::time::Duration;

use crate::HubError;
use crate::on_disk::on_disk;

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
        let place = path.to_owned();
        let file = on_disk(move || {
            if let Some(folder) = place.parent() {
                fs_err::create_dir_all(folder)
                    .map_err(HubError::disk("make a folder of its cache", folder))?;
            }
            let mut options = fs_err::OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).open(&place);
            let file = file.map_err(HubError::disk("make a lock of its cache", &place))?;
            Ok(file.into_parts().0)
        });
        let mut file = file.await?;
        let mut waits = Some(waits);
        loop {
            // On a disk of the network asking takes its time, too.
            let (tried, result) = on_disk(move || {
                let result = file.try_lock();
                Ok((file, result))
            })
            .await?;
            file = tried;
            match result {
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
