//! The buckets of callers, of whom there may be more than fit: those who were there first keep a bucket of their own, and the
//! others share a few thousand among them, so that a flood of addresses takes at most some of theirs.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

/// Callers with a bucket of their own. Full buckets are forgotten first, which changes nothing for anybody.
pub(crate) const MOST_CALLERS: usize = 32_768;
/// Buckets of the others. Which of them is whose depends on a secret, so nobody can choose to empty another one's.
const SHARED: usize = 4_096;

/// When each bucket will be full again, as governor counts it.
#[derive(Debug)]
pub(crate) struct RateStore<K> {
    buckets: Mutex<Buckets<K>>,
    secret: RandomState,
}

#[derive(Debug)]
struct Buckets<K> {
    own: HashMap<K, Nanos>,
    shared: Vec<Option<Nanos>>,
}

impl<K> RateStore<K> {
    pub(crate) fn new() -> Self {
        Self {
            buckets: Mutex::new(Buckets {
                own: HashMap::new(),
                shared: vec![None; SHARED],
            }),
            secret: RandomState::new(),
        }
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets<K>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> StateStore for RateStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, caller: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut buckets = self.buckets();
        if let Some(own) = buckets.own.get_mut(caller) {
            let (taken, next) = measure(Some(*own))?;
            *own = next;
            return Ok(taken);
        }
        if buckets.own.len() < MOST_CALLERS {
            let (taken, next) = measure(None)?;
            buckets.own.insert(caller.clone(), next);
            return Ok(taken);
        }
        let count = u64::try_from(SHARED).unwrap_or(u64::MAX);
        let index = usize::try_from(self.secret.hash_one(caller) % count).unwrap_or_default();
        let (taken, next) = measure(buckets.shared.get(index).copied().flatten())?;
        if let Some(shared) = buckets.shared.get_mut(index) {
            *shared = Some(next);
        }
        Ok(taken)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for RateStore<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.buckets().own.retain(|_, full_at| *full_at > drop_below);
    }

    fn len(&self) -> usize {
        self.buckets().own.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
