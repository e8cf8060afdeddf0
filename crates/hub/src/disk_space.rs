//! How much room a disk has.

use std::io;
use std::path::Path;

use crate::HubError;

/// The disk is not filled to the last byte.
pub(crate) const SPARE_BYTES: u64 = 64 << 20;

/// Refuses what would fill the disk, before any of it is written.
pub(crate) fn check_room(place: &Path, needed: u64) -> Result<(), HubError> {
    let existing = place.ancestors().find(|folder| folder.is_dir());
    let free = existing.map_or(Ok(u64::MAX), free_bytes);
    let free = free.map_err(HubError::disk("ask how much room its disk has", place))?;
    if needed > 0 && needed.saturating_add(SPARE_BYTES) > free {
        return Err(HubError::DiskFull { needed, free });
    }
    Ok(())
}

/// Bytes that this process may still write beside `path`, or u64::MAX where the system does not say.
#[cfg(unix)]
fn free_bytes(path: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(path)?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_path: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}
