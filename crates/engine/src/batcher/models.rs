//! Which models the jobs inside hold or wait for: a place is taken before the load, and given back when no job needs it.
//!
//! Three limits hold a cold model back: the number of places, the memory that the loader could not find, and a job that
//! has waited too long for a model without a place, which goes first. The loader's refusal counts until a place is given
//! back, since memory comes free in no other way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ModelKey;

#[derive(Clone, Copy, Debug)]
enum Residency {
    /// How many places had been given back when the load began.
    Loading { given_back: u64 },
    /// Since when its jobs can be prepared.
    Ready { since: Instant },
}

/// The places.
#[derive(Debug)]
pub(super) struct Models {
    limit: usize,
    held: BTreeMap<ModelKey, Residency>,
    /// Models that the loader found no memory for.
    refused: BTreeSet<ModelKey>,
    given_back: u64,
}

impl Models {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            held: BTreeMap::new(),
            refused: BTreeSet::new(),
            given_back: 0,
        }
    }

    pub(super) fn is_ready(&self, model: &ModelKey) -> bool {
        matches!(self.held.get(model), Some(Residency::Ready { .. }))
    }

    pub(super) fn is_loading(&self, model: &ModelKey) -> bool {
        matches!(self.held.get(model), Some(Residency::Loading { .. }))
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = &ModelKey> {
        self.held.keys().filter(|model| self.is_ready(model))
    }

    /// Whether the model has a place, or could take one now.
    pub(super) fn has_place(&self, model: &ModelKey) -> bool {
        self.held.contains_key(model) || (self.held.len() < self.limit && !self.refused.contains(model))
    }

    /// Whether the model has been ready for so long that others may take its place.
    pub(super) fn stretch_is_over(&self, model: &ModelKey, length: Duration, now: Instant) -> bool {
        match self.held.get(model) {
            Some(Residency::Ready { since }) => now.saturating_duration_since(*since) > length,
            Some(Residency::Loading { .. }) | None => false,
        }
    }

    pub(super) fn start_loading(&mut self, model: ModelKey) {
        let given_back = self.given_back;
        self.held.insert(model, Residency::Loading { given_back });
    }

    /// False when the model was not being loaded.
    pub(super) fn loaded(&mut self, model: &ModelKey, now: Instant) -> bool {
        match self.held.get_mut(model) {
            Some(residency @ Residency::Loading { .. }) => {
                *residency = Residency::Ready { since: now };
                true
            }
            Some(Residency::Ready { .. }) | None => false,
        }
    }

    /// Takes the place back from a model that was not loaded, or is not needed any more.
    pub(super) fn give_back(&mut self, model: &ModelKey) {
        if self.held.remove(model).is_some() {
            self.given_back += 1;
            self.refused.clear();
        }
    }

    /// The loader found no memory. False when no other model could ever make room for it.
    pub(super) fn refuse(&mut self, model: &ModelKey) -> bool {
        let Some(Residency::Loading { given_back }) = self.held.remove(model) else {
            return true;
        };
        if given_back != self.given_back {
            // What was given back in the meantime may be what was missing, so it is tried again.
            return true;
        }
        if self.held.is_empty() {
            return false;
        }
        self.refused.insert(model.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock, SystemClock};

    use super::*;

    #[test]
    fn a_refusal_that_is_older_than_a_place_given_back_counts_for_nothing() {
        let now = SystemClock.now();
        let [a, b, c] = ["a", "b", "c"].map(ModelKey::checkpoint);
        let mut models = Models::new(4);
        for model in [&a, &c] {
            models.start_loading(model.clone());
            assert!(models.loaded(model, now));
        }
        models.start_loading(b.clone());
        models.give_back(&a);
        assert!(models.refuse(&b));
        assert!(
            models.has_place(&b),
            "what was given back may be what was missing"
        );
        models.start_loading(b.clone());
        assert!(models.refuse(&b));
        assert!(!models.has_place(&b));
        models.give_back(&c);
        assert!(models.has_place(&b));
        models.start_loading(b.clone());
        assert!(!models.refuse(&b), "nobody is left who could make room");
    }
}
