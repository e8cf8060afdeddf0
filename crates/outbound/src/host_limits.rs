//! A bound for each host, server or domain, so that a slow or dead one cannot use up what all of them share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// At most so many at a time for each key. A key that nobody uses takes no memory.
#[derive(Debug)]
pub(crate) struct HostLimits {
    each: usize,
    keys: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl HostLimits {
    pub(crate) fn new(each: usize) -> Self {
        Self {
            each,
            keys: Mutex::default(),
        }
    }

    /// Waits for a place of this key.
    pub(crate) async fn place(&self, key: &str) -> OwnedSemaphorePermit {
        let places = self.places(key);
        places.acquire_owned().await.expect("it is never closed")
    }

    fn places(&self, key: &str) -> Arc<Semaphore> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = keys.get(key).and_then(Weak::upgrade) {
            return places;
        }
        keys.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.each));
        keys.insert(key.to_owned(), Arc::downgrade(&places));
        places
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
        assert_eq!(limits.keys.lock().unwrap().len(), 2, "b is forgotten");
    }
}
