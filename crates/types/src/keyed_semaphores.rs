//! A bound for each key, whatever the number of keys: one caller, one host, one model at a time takes so much and no more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// One semaphore for each key. A key that nobody uses takes no memory.
#[derive(Debug)]
pub struct KeyedSemaphores<K> {
    keys: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K> Default for KeyedSemaphores<K> {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> KeyedSemaphores<K> {
    /// The key's semaphore, which has `permits` when it is made anew. It is never closed.
    pub fn get_or_make(&self, key: K, permits: usize) -> Arc<Semaphore> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = keys.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        keys.retain(|_, semaphore| semaphore.strong_count() > 0);
        let made = Arc::new(Semaphore::new(permits));
        keys.insert(key, Arc::downgrade(&made));
        made
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_semaphore_while_somebody_uses_it() {
        let keyed = KeyedSemaphores::default();
        let one = keyed.get_or_make("a", 2);
        let permit = Arc::clone(&one).try_acquire_owned().unwrap();
        drop(one);
        // The permit holds it.
        assert_eq!(keyed.get_or_make("a", 7).available_permits(), 1);
        drop(permit);
        let _other = keyed.get_or_make("b", 1);
        assert_eq!(keyed.len(), 1, "a is forgotten");
        assert_eq!(keyed.get_or_make("a", 7).available_permits(), 7);
    }
}
