//! How much may be inside: jobs by their number, and their decoded images by their bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::EngineError;

/// Room in the engine for one job. Given back when it is dropped, which the engine does at the job's end.
#[derive(Debug)]
pub struct Place {
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) _images: TakenBytes,
}

/// The bytes of the decoded images of all jobs inside. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ImageBytes {
    used: Arc<Mutex<u64>>,
    limit: u64,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct TakenBytes {
    of: ImageBytes,
    bytes: u64,
}

impl ImageBytes {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            used: Arc::default(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn used(&self) -> u64 {
        *self.lock()
    }

    /// What is larger than the limit is let in alone, since it would never fit better.
    pub(crate) fn take(&self, bytes: u64) -> Result<TakenBytes, EngineError> {
        let mut used = self.lock();
        let after = used.saturating_add(bytes);
        if after > self.limit && *used > 0 {
            return Err(EngineError::ImagesFull {
                needed: bytes,
                used: *used,
                limit: self.limit,
            });
        }
        *used = after;
        Ok(TakenBytes {
            of: self.clone(),
            bytes,
        })
    }
}

impl Drop for TakenBytes {
    fn drop(&mut self) {
        let mut used = self.of.lock();
        *used = used.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_given_back() {
        let images = ImageBytes::new(100);
        let first = images.take(60).unwrap();
        let refused = images.take(41).unwrap_err();
        assert!(
            matches!(
                refused,
                EngineError::ImagesFull {
                    needed: 41,
                    used: 60,
                    limit: 100
                }
            ),
            "{refused:?}"
        );
        let second = images.take(40).unwrap();
        drop(first);
        assert_eq!(images.used(), 40);
        drop(second);
        let giant = images.take(1000).unwrap();
        assert!(images.take(1).is_err(), "what is too large is alone");
        drop(giant);
        assert_eq!(images.used(), 0);
    }
}
