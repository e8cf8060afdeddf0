//! How many rows a batch key may bring after the device ran out of memory.

use std::collections::HashMap;
use std::time::Instant;

use crate::BatchKey;

#[derive(Clone, Copy, Debug)]
struct Cap {
    rows: u32,
    until: Instant,
}

/// Smaller forwards, remembered per key. They end, since the memory may have been another program's.
#[derive(Debug, Default)]
pub(super) struct MemoryCaps {
    caps: HashMap<BatchKey, Cap>,
}

impl MemoryCaps {
    /// At least one row.
    pub(super) fn put(&mut self, key: BatchKey, rows: u32, until: Instant) {
        self.caps.insert(
            key,
            Cap {
                rows: rows.max(1),
                until,
            },
        );
    }

    /// The rows of one forward, when the key has a cap that has not ended.
    pub(super) fn rows(&mut self, key: &BatchKey, now: Instant) -> Option<u32> {
        self.caps.retain(|_, cap| cap.until > now);
        self.caps.get(key).map(|cap| cap.rows)
    }
}
