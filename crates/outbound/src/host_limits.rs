//! A bound for each host, server or domain, so that a slow or dead one cannot use up what all of them share.

use pentimento_types::KeyedSemaphores;
use tokio::sync::OwnedSemaphorePermit;

/// At most so many at a time for each key.
#[derive(Debug)]
pub(crate) struct HostLimits {
    each: usize,
    keys: KeyedSemaphores<String>,
}

impl HostLimits {
    pub(crate) fn new(each: usize) -> Self {
        Self {
            each,
            keys: KeyedSemaphores::default(),
        }
    }

    /// Waits for a place of this key.
    pub(crate) async fn place(&self, key: &str) -> OwnedSemaphorePermit {
        let places = self.keys.get_or_make(key.to_owned(), self.each);
        places.acquire_owned().await.expect("it is never closed")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_key_has_its_own_bound_and_is_forgotten_when_nobody_uses_it() {
        let limits = HostLimits::new(2);
        let (one, _two) = (limits.place("a").await, limits.place("a").await);
        let short = Duration::from_millis(20);
        assert!(timeout(short, limits.place("a")).await.is_err());
        let _other = limits.place("b").await;
        drop(one);
        let _three = limits.place("a").await;
        drop(_other);
        let _c = limits.place("c").await;
        assert_eq!(limits.keys.len(), 2, "b is forgotten");
    }
}
