//! Whether somebody looks at a job while it runs. While it is off nothing is computed for previews.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set from any thread, and read by the device's between two evaluations. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct PreviewSwitch(Arc<AtomicBool>);

impl PreviewSwitch {
    /// From now on previews are wanted, or not any more.
    pub fn set(&self, wanted: bool) {
        // Nothing else is read on the strength of it, so it needs no order.
        self.0.store(wanted, Ordering::Relaxed);
    }

    /// Whether they are.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
