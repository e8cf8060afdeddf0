//! Models in memory: loaded on demand, thrown out when room is needed, never while one is in use.
//!
//! Knows nothing of what a model is; whoever holds the `Arc` uses the model. Owned by one thread, so a hundred jobs that
//! want a cold model cause one load: the first loads, the others find it, or find why it failed.

use std::collections::HashMap;
use std::error::Error;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the pool has no model to give.
#[derive(Debug, thiserror::Error)]
pub enum PoolError<E: Error + 'static> {
    /// Loading failed, now or so lately that it is not tried again yet.
    #[error("loading failed")]
    Load(#[source] Arc<E>),
    /// Every resident model is in use and there is no room for one more.
    #[error("all {0} resident models are in use")]
    Full(usize),
}

struct Resident<M> {
    model: Arc<M>,
    last_used: u64,
}

struct Failure<E> {
    cause: Arc<E>,
    until: Instant,
}

/// At most `capacity` models, the least recently used one leaving first.
pub struct ModelPool<K, M, E> {
    capacity: usize,
    failure_lifetime: Duration,
    residents: HashMap<K, Resident<M>>,
    failures: HashMap<K, Failure<E>>,
    uses: u64,
}

impl<K: std::fmt::Debug, M, E> std::fmt::Debug for ModelPool<K, M, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let residents: Vec<&K> = self.residents.keys().collect();
        f.debug_struct("ModelPool")
            .field("residents", &residents)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash + Ord, M, E: Error + 'static> ModelPool<K, M, E> {
    /// An empty pool for at least one model. A failed load is answered from memory for `failure_lifetime`.
    #[must_use]
    pub fn new(capacity: usize, failure_lifetime: Duration) -> Self {
        Self {
            capacity: capacity.max(1),
            failure_lifetime,
            residents: HashMap::new(),
            failures: HashMap::new(),
            uses: 0,
        }
    }

    /// The model, resident or loaded now. Room is made before loading, so that two models never need memory at once
    /// beyond the capacity.
    ///
    /// # Errors
    /// When loading fails or failed lately, or when all residents are in use.
    pub fn get(
        &mut self,
        key: &K,
        now: Instant,
        load: impl FnOnce() -> Result<M, E>,
    ) -> Result<Arc<M>, PoolError<E>> {
        self.uses += 1;
        if let Some(resident) = self.residents.get_mut(key) {
            resident.last_used = self.uses;
            return Ok(Arc::clone(&resident.model));
        }
        self.failures.retain(|_, failure| failure.until > now);
        if let Some(failure) = self.failures.get(key) {
            return Err(PoolError::Load(Arc::clone(&failure.cause)));
        }
        self.make_room()?;
        match load() {
            Ok(model) => {
                let model = Arc::new(model);
                let resident = Resident {
                    model: Arc::clone(&model),
                    last_used: self.uses,
                };
                self.residents.insert(key.clone(), resident);
                Ok(model)
            }
            Err(cause) => {
                let cause = Arc::new(cause);
                let failure = Failure {
                    cause: Arc::clone(&cause),
                    until: now + self.failure_lifetime,
                };
                self.failures.insert(key.clone(), failure);
                Err(PoolError::Load(cause))
            }
        }
    }

    fn make_room(&mut self) -> Result<(), PoolError<E>> {
        while self.residents.len() >= self.capacity {
            let idle = self
                .residents
                .iter()
                .filter(|(_, resident)| Arc::strong_count(&resident.model) == 1);
            let oldest = idle.min_by_key(|(_, resident)| resident.last_used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return Err(PoolError::Full(self.residents.len()));
            };
            self.residents.remove(&key);
        }
        Ok(())
    }

    /// Throws out every model that is not in use, when the device needs its memory for something else.
    pub fn evict_idle(&mut self) -> usize {
        let before = self.residents.len();
        self.residents
            .retain(|_, resident| Arc::strong_count(&resident.model) > 1);
        before - self.residents.len()
    }

    /// The resident models, in order.
    #[must_use]
    pub fn resident(&self) -> Vec<K> {
        let mut keys: Vec<K> = self.residents.keys().cloned().collect();
        keys.sort();
        keys
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock, SystemClock};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("broken file number {0}")]
    struct Broken(u32);

    type Pool = ModelPool<&'static str, String, Broken>;

    fn load(pool: &mut Pool, name: &'static str, now: Instant) -> Result<Arc<String>, PoolError<Broken>> {
        pool.get(&name, now, || Ok(name.to_owned()))
    }

    #[test]
    fn the_least_recently_used_model_leaves_and_one_in_use_never_does() {
        let now = SystemClock.now();
        let mut pool = Pool::new(2, Duration::from_secs(1));
        let a = load(&mut pool, "a", now).expect("there is room");
        load(&mut pool, "b", now).expect("there is room");
        load(&mut pool, "c", now).expect("b leaves");
        assert_eq!(pool.resident(), ["a", "c"], "a is older, but in use");
        let _c = load(&mut pool, "c", now).expect("it is resident");
        assert!(matches!(load(&mut pool, "d", now), Err(PoolError::Full(2))));
        drop(a);
        load(&mut pool, "d", now).expect("a leaves");
        assert_eq!(pool.resident(), ["c", "d"]);
        assert_eq!(pool.evict_idle(), 1);
        assert_eq!(pool.resident(), ["c"]);
    }

    #[test]
    fn a_hundred_jobs_cause_one_load_and_all_learn_the_real_cause() {
        let now = SystemClock.now();
        let mut pool = Pool::new(1, Duration::from_secs(10));
        let mut loads = 0;
        for _ in 0..100 {
            let result = pool.get(&"bad", now, || {
                loads += 1;
                Err(Broken(loads))
            });
            let Err(PoolError::Load(cause)) = result else {
                panic!("the load fails")
            };
            assert_eq!(cause.to_string(), "broken file number 1");
        }
        assert_eq!(loads, 1);
        let later = now + Duration::from_secs(11);
        let model = pool
            .get(&"bad", later, || Ok("mended".to_owned()))
            .expect("it is tried again");
        assert_eq!(*model, "mended");
    }

    #[test]
    fn a_failed_load_leaves_the_residents_that_fit() {
        let now = SystemClock.now();
        let mut pool = Pool::new(2, Duration::ZERO);
        load(&mut pool, "a", now).expect("there is room");
        assert!(pool.get(&"bad", now, || Err(Broken(1))).is_err());
        assert_eq!(pool.resident(), ["a"]);
    }
}
