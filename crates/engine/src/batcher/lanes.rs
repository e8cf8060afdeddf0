//! Which batch key runs next: deficit round robin in which a key that was idle goes first for one turn.
//!
//! The rule is that of FQ-CoDel (RFC 8290, section 4.2): two lists of lanes, new before old; the lane in front is served
//! while its deficit is positive, pays the cost of each forward, and then goes to the end of the old list with a fresh
//! quantum. Costs may make a deficit negative, so a forward dearer than a quantum is paid back over several rounds.
//! Two bounds are ours: forwards per turn, and an age beyond which the job that has waited longest goes first.

use std::collections::VecDeque;
use std::time::Instant;

use pentimento_types::JobId;

use crate::{BatchKey, BatchPolicy};

/// A debt deeper than this many quanta is forgiven, so that choosing takes bounded time under any policy.
const DEEPEST_DEBT: i64 = 64;

/// A job's place in its lane.
#[derive(Clone, Copy, Debug)]
struct Place {
    job: JobId,
    /// When it was last evaluated, or became ready.
    since: Instant,
}

/// The jobs of one batch key that have an image ready, the longest waiting first.
#[derive(Debug)]
pub(super) struct Lane {
    key: BatchKey,
    places: VecDeque<Place>,
    deficit: i64,
    ticks: u32,
}

impl Lane {
    pub(super) const fn key(&self) -> &BatchKey {
        &self.key
    }

    /// The jobs in the order of their turn.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.places.iter().map(|place| place.job)
    }

    /// Puts down what a forward costs.
    pub(super) fn charge(&mut self, cost: u64, policy: &BatchPolicy) {
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let deepest = -DEEPEST_DEBT.saturating_mul(quantum(policy));
        self.deficit = self.deficit.saturating_sub(cost).max(deepest);
        self.ticks += 1;
    }

    fn turn_is_over(&self, policy: &BatchPolicy) -> bool {
        self.deficit <= 0 || self.ticks >= policy.max_ticks_per_turn.max(1)
    }

    fn start_turn(&mut self, policy: &BatchPolicy) {
        // A turn cut short by the tick bound must not save up credit.
        self.deficit = self.deficit.saturating_add(quantum(policy)).min(quantum(policy));
        self.ticks = 0;
    }
}

fn quantum(policy: &BatchPolicy) -> i64 {
    i64::try_from(policy.compute_budget)
        .unwrap_or(i64::MAX / DEEPEST_DEBT)
        .clamp(1, i64::MAX / DEEPEST_DEBT)
}

/// All batch keys that have, or lately had, an image ready.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    new: VecDeque<Lane>,
    old: VecDeque<Lane>,
}

impl Lanes {
    /// A job has an image ready; it goes to the end of its lane.
    pub(super) fn push(&mut self, key: &BatchKey, job: JobId, policy: &BatchPolicy, now: Instant) {
        let place = Place { job, since: now };
        if let Some(lane) = self.all_mut().find(|lane| lane.key == *key) {
            lane.places.push_back(place);
            return;
        }
        let places = VecDeque::from([place]);
        self.new.push_back(Lane {
            key: key.clone(),
            places,
            deficit: quantum(policy),
            ticks: 0,
        });
    }

    /// Takes a job out of its lane.
    pub(super) fn remove(&mut self, job: JobId) {
        for lane in self.all_mut() {
            lane.places.retain(|place| place.job != job);
        }
    }

    /// The lane whose turn it is. None when no job has an image ready.
    pub(super) fn choose(&mut self, policy: &BatchPolicy, now: Instant) -> Option<&mut Lane> {
        if self.is_empty() {
            // Nobody is waiting, so nobody is owed anything.
            self.new.clear();
            self.old.clear();
            return None;
        }
        if let Some(at) = self.overdue(policy, now) {
            return if at < self.new.len() {
                self.new.get_mut(at)
            } else {
                self.old.get_mut(at - self.new.len())
            };
        }
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let front = list.front()?;
            if !front.places.is_empty() && !front.turn_is_over(policy) {
                break;
            }
            let mut lane = list.pop_front()?;
            // An empty new lane goes through the old list once, or its key could always come back as new.
            if is_new || !lane.places.is_empty() {
                lane.start_turn(policy);
                self.old.push_back(lane);
            }
        }
        self.new.front_mut().or(self.old.front_mut())
    }

    /// Position, new lanes first, of the lane with the job that has waited longest, if that is too long.
    fn overdue(&self, policy: &BatchPolicy, now: Instant) -> Option<usize> {
        let fronts = self
            .all()
            .enumerate()
            .filter_map(|(at, lane)| Some((lane.places.front()?.since, at)));
        let (since, at) = fronts.min()?;
        (now.saturating_duration_since(since) > policy.age_bound).then_some(at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().all(|lane| lane.places.is_empty())
    }

    fn all(&self) -> impl Iterator<Item = &Lane> {
        self.new.iter().chain(&self.old)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.new.iter_mut().chain(&mut self.old)
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock, SystemClock};

    use super::*;
    use crate::{ConditioningShape, LatentSize, ModelKey};

    fn key(side: u32) -> BatchKey {
        BatchKey {
            model: ModelKey::checkpoint("m"),
            latent: LatentSize {
                height: side,
                width: side,
            },
            conditioning: ConditioningShape::of_text(77),
        }
    }

    #[test]
    fn cheap_turns_save_up_no_credit() {
        let now = SystemClock.now();
        let short_turns = BatchPolicy {
            compute_budget: 100,
            max_ticks_per_turn: 1,
            ..BatchPolicy::gpu()
        };
        let mut lanes = Lanes::default();
        lanes.push(&key(1), JobId::from_u128(1), &short_turns, now);
        lanes.push(&key(2), JobId::from_u128(2), &short_turns, now);
        for _ in 0..1000 {
            lanes.choose(&short_turns, now).unwrap().charge(1, &short_turns);
        }
        // From here on forwards are as dear as a turn, and only the credit ends it.
        let policy = BatchPolicy {
            max_ticks_per_turn: u32::MAX,
            ..short_turns
        };
        let mut in_a_row = 0;
        let mut last = None;
        for _ in 0..20 {
            let lane = lanes.choose(&policy, now).unwrap();
            in_a_row = if last.as_ref() == Some(lane.key()) {
                in_a_row + 1
            } else {
                1
            };
            last = Some(lane.key().clone());
            lane.charge(100, &policy);
            assert!(in_a_row <= 2, "a lane lived on what it had saved");
        }
    }
}
