//! Components in memory: thrown out, the least recently used first, when the budget in bytes is needed for others, and
//! never while somebody holds one or while it is pinned.
//!
//! Knows nothing of what a component is, nor how it is loaded.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use pentimento_types::Reservation;
use prometheus_client::metrics::counter::Counter;

/// Something in the pool. Clones share it.
pub(crate) trait Shared: Clone {
    /// How many clones there are, this one included.
    fn holders(&self) -> usize;
}

struct Resident<C> {
    component: C,
    /// A component whose memory this one shares: it cannot leave before, since that would free nothing.
    _base: Option<C>,
    /// Its place in the account of the process.
    _counted: Option<Reservation>,
    size_bytes: u64,
    last_used: u64,
    /// The last use that a look at all of them has seen, and when that was.
    seen: Option<(u64, Instant)>,
}

impl<C: Shared> Resident<C> {
    fn is_idle(&self) -> bool {
        self.component.holders() == 1
    }
}

/// Everything else is held by somebody, so there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    /// Bytes that the others take which are in use.
    pub(crate) held_bytes: u64,
}

/// The components in memory.
pub(crate) struct ComponentPool<K, C> {
    budget: u64,
    residents: HashMap<K, Resident<C>>,
    pinned: HashSet<K>,
    uses: u64,
    changes: u64,
    /// Of all components thrown out.
    evictions: Counter,
}

impl<K: Clone + Eq + Hash, C: Shared> ComponentPool<K, C> {
    /// An empty pool that keeps at most `budget` bytes of what nobody uses.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            residents: HashMap::new(),
            pinned: HashSet::new(),
            uses: 0,
            changes: 0,
            evictions: Counter::default(),
        }
    }

    /// The same with a counter that somebody else reads, too.
    pub(crate) fn counting(self, evictions: Counter) -> Self {
        Self { evictions, ..self }
    }

    /// Another number whenever a component came or left.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.residents.contains_key(key)
    }

    /// A clone of a resident component, which is now the last used one.
    pub(crate) fn get(&mut self, key: &K) -> Option<C> {
        self.uses += 1;
        let resident = self.residents.get_mut(key)?;
        resident.last_used = self.uses;
        Some(resident.component.clone())
    }

    /// Takes a component in, whatever the budget says: it is in memory already. `size_bytes` is what it takes beside `base`,
    /// whose memory it shares.
    pub(crate) fn insert(
        &mut self,
        key: K,
        (component, base): (C, Option<C>),
        (size_bytes, counted): (u64, Option<Reservation>),
    ) {
        self.uses += 1;
        let resident = Resident {
            component,
            _base: base,
            _counted: counted,
            size_bytes,
            last_used: self.uses,
            seen: None,
        };
        self.residents.insert(key, resident);
        self.changes += 1;
    }

    /// Throws out what nobody uses until `needed` more bytes fit into the budget. `keep` is wanted beside them.
    ///
    /// What is larger than the whole budget is let in once nothing else is in use, since waiting longer would not help.
    /// Freeing gigabytes takes a while, so what is thrown out goes into `evicted`, to be dropped where nobody waits.
    ///
    /// # Errors
    /// When components that others hold, or that are pinned, are in the way; what was thrown out stays out.
    pub(crate) fn make_room(&mut self, needed: u64, keep: &[K], evicted: &mut Vec<C>) -> Result<(), NoRoom> {
        while self.bytes().saturating_add(needed) > self.budget {
            let others = || self.residents.iter().filter(|(key, _)| !keep.contains(key));
            let idle = others().filter(|(key, resident)| resident.is_idle() && !self.pinned.contains(*key));
            let oldest = idle.min_by_key(|(_, resident)| resident.last_used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                evicted.extend(self.residents.remove(&key).map(|resident| resident.component));
                self.evictions.inc();
                self.changes += 1;
                continue;
            }
            let held_bytes = others().map(|(_, resident)| resident.size_bytes).sum();
            return if others().next().is_some() {
                Err(NoRoom { held_bytes })
            } else {
                Ok(())
            };
        }
        Ok(())
    }

    /// Keeps these, and no others, whether somebody uses them or not.
    pub(crate) fn pin(&mut self, keys: impl IntoIterator<Item = K>) {
        self.pinned = keys.into_iter().collect();
    }

    /// Throws out everything that nobody uses and that is not pinned, and says how many bytes that was.
    pub(crate) fn evict_idle(&mut self, evicted: &mut Vec<C>) -> u64 {
        self.evict_where(evicted, |_, _| true)
    }

    /// Throws out which of these nobody uses and are not pinned, and says how many bytes that was.
    pub(crate) fn evict(&mut self, keys: &[K], evicted: &mut Vec<C>) -> u64 {
        self.evict_where(evicted, |key, _| keys.contains(key))
    }

    /// Throws out what nobody has used for as long as `keep` says of it, as far as calls of this have seen. What it says
    /// nothing of stays.
    pub(crate) fn evict_unused(
        &mut self,
        now: Instant,
        keep: impl Fn(&K) -> Option<Duration>,
        evicted: &mut Vec<C>,
    ) -> u64 {
        for resident in self.residents.values_mut() {
            let last_used = resident.last_used;
            if !resident.is_idle() || resident.seen.is_none_or(|(use_, _)| use_ != last_used) {
                resident.seen = Some((last_used, now));
            }
        }
        self.evict_where(evicted, |key, resident| {
            let unused = resident.seen.map(|(_, then)| now.saturating_duration_since(then));
            keep(key).is_some_and(|keep| unused.is_some_and(|unused| unused >= keep))
        })
    }

    fn evict_where(&mut self, evicted: &mut Vec<C>, chosen: impl Fn(&K, &Resident<C>) -> bool) -> u64 {
        let before = self.bytes();
        let pinned = &self.pinned;
        let mut count = usize::MAX;
        // Those that share the memory of another go first, and let go of it.
        while self.residents.len() < count {
            count = self.residents.len();
            let goes = |key: &K, resident: &mut Resident<C>| {
                resident.is_idle() && !pinned.contains(key) && chosen(key, resident)
            };
            let gone = self.residents.extract_if(goes);
            let before = evicted.len();
            evicted.extend(gone.map(|(_, resident)| resident.component));
            self.evictions.inc_by((evicted.len() - before) as u64);
        }
        self.changes += 1;
        before - self.bytes()
    }

    /// Whether somebody uses one of them.
    pub(crate) fn is_in_use(&self) -> bool {
        self.residents.values().any(|resident| !resident.is_idle())
    }

    /// What all residents take.
    pub(crate) fn bytes(&self) -> u64 {
        self.residents.values().map(|resident| resident.size_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    impl Shared for Arc<str> {
        fn holders(&self) -> usize {
            Arc::strong_count(self)
        }
    }

    fn pool(budget: u64, components: &[(&'static str, u64)]) -> ComponentPool<&'static str, Arc<str>> {
        let mut pool = ComponentPool::new(budget);
        for (name, size) in components {
            pool.insert(*name, (Arc::from(*name), None), (*size, None));
        }
        pool
    }

    fn resident(pool: &ComponentPool<&'static str, Arc<str>>) -> Vec<&'static str> {
        let mut names: Vec<_> = pool.residents.keys().copied().collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_least_recently_used_leave_until_the_bytes_fit() {
        let mut pool = pool(100, &[("a", 40), ("b", 30), ("c", 30)]);
        assert!(pool.get(&"a").is_some());
        pool.make_room(50, &[], &mut Vec::new()).unwrap();
        assert_eq!(
            resident(&pool),
            ["a"],
            "b and c were used before a, and b alone is too little"
        );
        assert_eq!(pool.bytes(), 40);
    }

    #[test]
    fn the_oldest_leaves_and_not_the_newest() {
        let mut pool = pool(100, &[("a", 30), ("b", 30), ("c", 30)]);
        pool.make_room(20, &[], &mut Vec::new()).unwrap();
        assert_eq!(resident(&pool), ["b", "c"]);
        assert!(pool.get(&"b").is_some());
        pool.make_room(60, &[], &mut Vec::new()).unwrap();
        assert_eq!(resident(&pool), ["b"]);
    }

    #[test]
    fn what_is_held_or_wanted_never_leaves() {
        let mut pool = pool(100, &[("held", 40), ("wanted", 40), ("idle", 20)]);
        let held = pool.get(&"held").unwrap();
        assert_eq!(
            pool.make_room(50, &["wanted"], &mut Vec::new()),
            Err(NoRoom { held_bytes: 40 })
        );
        assert_eq!(resident(&pool), ["held", "wanted"]);
        assert_eq!(pool.evict_idle(&mut Vec::new()), 40);
        assert_eq!(pool.evictions.get(), 2, "idle and wanted");
        drop(held);
        pool.make_room(100, &[], &mut Vec::new()).unwrap();
        assert!(resident(&pool).is_empty());
    }

    #[test]
    fn what_is_pinned_stays_and_is_in_the_way() {
        let mut pool = pool(100, &[("pinned", 60), ("idle", 40)]);
        pool.pin(["pinned"]);
        assert_eq!(pool.evict_idle(&mut Vec::new()), 40);
        assert_eq!(pool.evict(&["pinned"], &mut Vec::new()), 0);
        assert_eq!(
            pool.make_room(50, &[], &mut Vec::new()),
            Err(NoRoom { held_bytes: 60 })
        );
        pool.pin([]);
        assert_eq!(pool.make_room(50, &[], &mut Vec::new()), Ok(()));
    }

    #[test]
    fn what_nobody_has_used_for_long_enough_leaves() {
        let start = pentimento_types::Clock::now(&pentimento_types::SystemClock);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pool = pool(1000, &[("held", 1), ("used", 2), ("old", 4), ("kept", 8)]);
        let keep = |key: &&str| (*key != "kept").then_some(Duration::from_secs(60));
        let held = pool.get(&"held");
        assert_eq!(pool.evict_unused(at(0), keep, &mut Vec::new()), 0);
        assert!(pool.get(&"used").is_some());
        assert_eq!(pool.evict_unused(at(59), keep, &mut Vec::new()), 0);
        assert_eq!(pool.evict_unused(at(60), keep, &mut Vec::new()), 4);
        drop(held);
        assert_eq!(pool.evict_unused(at(119), keep, &mut Vec::new()), 2);
        assert_eq!(pool.evict_unused(at(120), keep, &mut Vec::new()), 1);
        assert_eq!(pool.evict_unused(at(9999), keep, &mut Vec::new()), 0);
        assert_eq!(resident(&pool), ["kept"]);
    }

    #[test]
    fn a_base_stays_as_long_as_what_shares_its_memory() {
        let mut pool = pool(100, &[("base", 60)]);
        let base = pool.get(&"base");
        pool.insert("set", (Arc::from("set"), base), (20, None));
        assert!(pool.get(&"set").is_some());
        // The base was used before, and yet what shares its memory goes first.
        let mut evicted = Vec::new();
        pool.make_room(30, &[], &mut evicted).unwrap();
        assert_eq!(resident(&pool), ["base"]);
        drop(evicted);
        pool.make_room(50, &[], &mut Vec::new()).unwrap();
        assert!(resident(&pool).is_empty());
    }

    #[test]
    fn a_held_set_holds_its_base() {
        let mut pool = pool(100, &[("base", 60)]);
        let base = pool.get(&"base");
        pool.insert("set", (Arc::from("set"), base), (20, None));
        let held = pool.get(&"set");
        assert_eq!(
            pool.make_room(50, &[], &mut Vec::new()),
            Err(NoRoom { held_bytes: 80 })
        );
        assert_eq!(pool.evict_idle(&mut Vec::new()), 0);
        drop(held);
        assert_eq!(pool.evict_idle(&mut Vec::new()), 80, "both at once");
    }

    #[test]
    fn what_is_larger_than_the_budget_is_let_in_alone() {
        let mut pool = pool(100, &[("a", 60), ("shared", 30)]);
        let shared = pool.get(&"shared").unwrap();
        assert_eq!(
            pool.make_room(500, &[], &mut Vec::new()),
            Err(NoRoom { held_bytes: 30 })
        );
        assert_eq!(pool.make_room(500, &["shared"], &mut Vec::new()), Ok(()));
        drop(shared);
    }
}
