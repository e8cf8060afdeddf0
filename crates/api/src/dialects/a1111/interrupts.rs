//! When each caller has last interrupted its calls, so that a call that is still becoming jobs stops as well.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pentimento_types::ApiKeyId;

/// Callers who are remembered; one more takes the place of one of them.
const MOST_CALLERS: usize = 4096;

/// Interrupts of all callers, in their order.
#[derive(Debug, Default)]
pub(crate) struct Interrupts(Mutex<Order>);

#[derive(Debug, Default)]
struct Order {
    count: u64,
    latest: HashMap<ApiKeyId, u64>,
}

impl Interrupts {
    /// How many there have been so far; for [`Self::since`].
    pub(super) fn so_far(&self) -> u64 {
        self.lock().count
    }

    /// Whether this caller has interrupted since then.
    pub(super) fn since(&self, before: u64, owner: &ApiKeyId) -> bool {
        self.lock()
            .latest
            .get(owner)
            .is_some_and(|latest| *latest > before)
    }

    pub(super) fn interrupt(&self, owner: &ApiKeyId) {
        let mut order = self.lock();
        order.count += 1;
        let count = order.count;
        if order.latest.len() >= MOST_CALLERS && !order.latest.contains_key(owner) {
            let other = order.latest.keys().next().cloned();
            other.and_then(|other| order.latest.remove(&other));
        }
        order.latest.insert(owner.clone(), count);
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_interrupts_of_the_same_caller_count() {
        let (interrupts, one, other) = (
            Interrupts::default(),
            ApiKeyId::new("one"),
            ApiKeyId::new("other"),
        );
        interrupts.interrupt(&one);
        let before = interrupts.so_far();
        assert!(!interrupts.since(before, &one));
        interrupts.interrupt(&other);
        assert!(!interrupts.since(before, &one) && interrupts.since(before, &other));
    }
}
