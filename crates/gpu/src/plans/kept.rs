//! What is kept up to a number: of more, what was not asked for longest goes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by their keys.
#[derive(Debug)]
pub(super) struct Kept<K, V> {
    most: usize,
    /// With the turn in which each was asked for last.
    values: HashMap<K, (u64, V)>,
    /// The keys by that turn.
    turns: BTreeMap<u64, K>,
    turn: u64,
}

impl<K: Copy + Eq + Hash, V> Kept<K, V> {
    /// At most `most` of them, which is at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            values: HashMap::new(),
            turns: BTreeMap::new(),
            turn: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether one has to go for the next one.
    fn is_full(&self) -> bool {
        self.values.len() >= self.most
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.turn += 1;
        let (turn, value) = self.values.get_mut(key)?;
        self.turns.remove(turn);
        *turn = self.turn;
        self.turns.insert(self.turn, *key);
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if let Some((turn, _)) = self.values.remove(&key) {
            self.turns.remove(&turn);
        } else if self.is_full()
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.values.remove(&oldest);
        }
        self.turn += 1;
        self.turns.insert(self.turn, key);
        self.values.insert(key, (self.turn, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_goes() {
        let mut kept = Kept::new(3);
        for key in 0..3 {
            kept.put(key, key * 10);
        }
        assert!(kept.is_full());
        assert_eq!(kept.get(&0), Some(&0));
        kept.put(1, 11);
        kept.put(3, 30);
        assert_eq!(
            [0, 1, 2, 3].map(|key| kept.get(&key).copied()),
            [Some(0), Some(11), None, Some(30)]
        );
        assert_eq!((kept.len(), kept.turns.len()), (3, 3));
    }
}
