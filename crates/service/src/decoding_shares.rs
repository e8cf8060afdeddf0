//! Whose files are decoded: one caller's many stand behind each other, and not before everybody's.

use std::sync::Arc;

use pentimento_types::{ApiKeyId, KeyedSemaphores};
use tokio::sync::Semaphore;

/// How many files of one caller are decoded at once: never so many that others find no turn. Callers without keys cannot
/// be told apart, and share all.
#[derive(Debug)]
pub(crate) struct DecodingShares {
    at_once: usize,
    of: KeyedSemaphores<ApiKeyId>,
}

impl DecodingShares {
    /// Of so many that are decoded at once in all.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            of: KeyedSemaphores::default(),
        }
    }

    pub(crate) fn of(&self, owner: &ApiKeyId) -> Arc<Semaphore> {
        let turns = if *owner == ApiKeyId::anonymous() {
            self.at_once
        } else {
            self.at_once.saturating_sub(1)
        };
        self.of.get_or_make(owner.clone(), turns.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_never_takes_all_turns() {
        let caller = ApiKeyId::new("many");
        for (at_once, expected) in [(1, 1), (2, 1), (8, 7)] {
            let shares = DecodingShares::new(at_once);
            let share = shares.of(&caller);
            assert_eq!(share.available_permits(), expected);
            assert!(Arc::ptr_eq(&share, &shares.of(&caller)));
            assert_eq!(shares.of(&ApiKeyId::anonymous()).available_permits(), at_once);
            drop(share);
            let _other = shares.of(&ApiKeyId::new("one"));
            assert_eq!(shares.of.len(), 1, "who decodes nothing is forgotten");
        }
    }
}
