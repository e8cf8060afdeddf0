//! How much room a disk has.

use std::io;
use std::path::Path;

/// Bytes that this process may still write beside `path`, or u64::MAX where the system does not say.
#[cfg(unix)]
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(path)?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(not(unix))]
pub(crate) fn free_bytes(_path: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}
