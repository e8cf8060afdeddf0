//! Whose turn it is: start-time fair queueing by the device's time (Goyal, Vin and Cheng, 1997), over owners, over the
//! models and sizes that one of them asks for, and over the jobs of one of those. So neither a caller nor a kind of job
//! pushes out others by its number.
//!
//! Everybody has a point in virtual time at which the next act starts. The earliest acts, and moves on by the time that the
//! act has taken of the device; time itself is the start of the act that was chosen last, and nobody starts earlier, so that
//! waiting saves nothing up. What an act took is known when it is over, so that its time is never estimated.
//!
//! Between owners that is all. Among the jobs of one owner an act weighs as many times as much as its job is larger than the
//! owner's smallest one inside, up to eight times: a job of four steps beside one of sixty is so nearly as fast as alone, and
//! the other gets on all the same. (Its share of the time is in the inverse of its size: discriminatory processor sharing,
//! Kleinrock, 1967.) A caller's own order of urgency is a weight, too.
//!
//! Nobody starves: between two acts of a job every other of its owner has at most about the time of eight acts of it, unless
//! its caller has said that it is not urgent. Beside that, an eighth of the time goes to the job that has waited longest
//! beyond the age bound, for those who stand before a flood of new jobs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pentimento_types::{ApiKeyId, Priority};

use super::job::{JobEntry, JobSpec, Turn};
use crate::{LatentSize, ModelKey};

/// What an act counts for when a clock sees no time pass.
const LEAST: Duration = Duration::from_micros(1);
/// How much dearer an act is for the line of the overdue than for an owner.
const OVERDUE_WEIGHT: u32 = 8;
/// How much dearer an act of a large job is at most than one of a small job of the same owner.
const MOST_WEIGHT: f64 = 8.0;

/// How much an act of a job counts within its owner, whose smallest job has this much work before it.
pub(super) fn weight(spec: &JobSpec, smallest: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio of estimates needs a few digits"
    )]
    let ratio = spec.work as f64 / smallest.max(1) as f64;
    let by_size = ratio.clamp(1.0, MOST_WEIGHT);
    match spec.priority {
        Priority::Low => by_size * MOST_WEIGHT,
        Priority::Normal => by_size,
        Priority::High => by_size / MOST_WEIGHT,
    }
}

/// An owner, or one model and size of an owner.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Its start in the virtual time of what it is a part of.
    start: Duration,
    /// The virtual time of its own parts.
    now: Duration,
}

type Kind = (ApiKeyId, ModelKey, LatentSize);

fn kind_of(spec: &JobSpec) -> Kind {
    (spec.owner.clone(), spec.model.clone(), spec.latent)
}

/// The device's time, shared.
#[derive(Debug, Default)]
pub(super) struct Shares {
    now: Duration,
    owners: HashMap<ApiKeyId, Share>,
    kinds: HashMap<Kind, Share>,
    overdue: Duration,
}

/// Where an entry stands: the starts of its owner, its kind and itself, and its order. The least goes first.
pub(super) type Standing = (Duration, Duration, Duration, u64);

impl Shares {
    pub(super) fn standing(&self, entry: &JobEntry) -> Standing {
        let owner = self.owners.get(&entry.spec.owner).copied().unwrap_or_default();
        let kind = self.kinds.get(&kind_of(&entry.spec)).copied().unwrap_or_default();
        (
            owner.start.max(self.now),
            kind.start.max(owner.now),
            entry.turn.start.max(kind.now),
            entry.order,
        )
    }

    /// The one of these that acts next, and whether only because it is overdue.
    pub(super) fn choose<'a>(
        &mut self,
        entries: &[&'a JobEntry],
        age_bound: Duration,
        now: Instant,
    ) -> Option<(&'a JobEntry, bool)> {
        let fair = *entries.iter().min_by_key(|entry| self.standing(entry))?;
        let oldest = *entries
            .iter()
            .min_by_key(|entry| (entry.turn.since, entry.order))?;
        let is_overdue = now.saturating_duration_since(oldest.turn.since) > age_bound;
        let (owner, kind, job, _) = self.standing(fair);
        if is_overdue && self.overdue.max(self.now) < owner {
            return Some((oldest, true));
        }
        self.now = owner;
        self.owners.entry(fair.spec.owner.clone()).or_default().now = kind;
        self.kinds.entry(kind_of(&fair.spec)).or_default().now = job;
        Some((fair, false))
    }

    /// A job had a part in an act, which took this much of the device's time for it and counts `weight` times among the jobs
    /// of its owner.
    pub(super) fn charge(&mut self, entry: &mut JobEntry, took: Duration, weight: f64, now: Instant) {
        let took = took.max(LEAST);
        let weighted = took.mul_f64(weight).max(LEAST);
        let (owner, kind, job, _) = self.standing(entry);
        self.owners.entry(entry.spec.owner.clone()).or_default().start = owner + took;
        self.kinds.entry(kind_of(&entry.spec)).or_default().start = kind + weighted;
        entry.turn = Turn {
            start: job + weighted,
            since: now,
        };
    }

    pub(super) fn charge_overdue(&mut self, took: Duration) {
        self.overdue = self.overdue.max(self.now) + OVERDUE_WEIGHT * took.max(LEAST);
    }

    /// Forgets who has neither a job inside nor had more than the others.
    pub(super) fn forget<'a>(&mut self, inside: impl Iterator<Item = &'a JobEntry>) {
        let (mut owners, mut kinds) = (HashSet::new(), HashSet::new());
        for entry in inside {
            owners.insert(&entry.spec.owner);
            kinds.insert(kind_of(&entry.spec));
        }
        let now = self.now;
        self.owners
            .retain(|owner, share| share.start > now || owners.contains(owner));
        let owners = &self.owners;
        self.kinds.retain(|kind, share| {
            let of_owner = owners.get(&kind.0).map_or(Duration::MAX, |owner| owner.now);
            share.start > of_owner || kinds.contains(kind)
        });
    }
}
