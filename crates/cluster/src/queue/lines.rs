//! The jobs that a node has accepted, on their way into the cluster: a fair line for each checkpoint, and what has been put
//! before the other nodes.
//!
//! A stream hands messages out in the order in which they came, which would let a caller with a thousand jobs go first. So a
//! node puts one job of a checkpoint before the others, and the next when somebody has taken it: whose turn it is, is decided
//! as late as possible. Owns no clock; times come in as arguments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use pentimento_jobs::{FairLine, ModelsBeside, QueueEntry};
use pentimento_types::{ApiKeyId, JobId};

use crate::ModelToken;

/// A job that nobody takes for so long lets another one out beside it: it may be one that nobody can take.
const STUCK: Duration = Duration::from_secs(5);
/// How many are let out beside it at most.
const MOST_BESIDE: u64 = 8;
/// Jobs of one owner and checkpoint that nobody could take, and that are out beside others of it: so many sets of models are tried.
const PASSED_OF_OWNER: usize = 4;

/// Where a job of this node is.
#[derive(Clone, Debug)]
enum Place {
    /// In its line.
    Ready(ModelToken),
    /// In the stream, and nobody has it.
    Out {
        entry: QueueEntry,
        since: Instant,
        offer: Offer,
    },
    /// A node has it.
    Taken {
        entry: QueueEntry,
        /// What was last found out about it, and when: the number of its lease, or 0 where it has none.
        last_sign: (u64, Instant),
    },
}

/// How a job stands that is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// Somebody is to take it, and others of its checkpoint wait behind it.
    Open,
    /// Somebody has had it and could not take it: only those like it wait behind it.
    Passed,
    /// Nobody here knows whether it is there, and nobody waits behind it.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    ready: BTreeMap<ModelToken, FairLine>,
    places: HashMap<JobId, Place>,
}

impl Lines {
    pub(super) fn contains(&self, id: JobId) -> bool {
        self.places.contains_key(&id)
    }

    /// A job that is not known yet.
    pub(super) fn push(&mut self, entry: QueueEntry) {
        self.put(entry, FairLine::push);
    }

    /// One that was out comes first of its owner's.
    pub(super) fn put_back(&mut self, entry: QueueEntry) {
        self.put(entry, FairLine::put_back);
    }

    fn put(&mut self, entry: QueueEntry, put: impl FnOnce(&mut FairLine, QueueEntry)) {
        let token = ModelToken::of(&entry.model);
        self.places.insert(entry.id, Place::Ready(token.clone()));
        put(self.ready.entry(token).or_default(), entry);
    }

    /// The next job to put before the others, which counts as out from now on.
    pub(super) fn next_out(&mut self, now: Instant) -> Option<(ModelToken, QueueEntry)> {
        let out = self.out_by_model(now);
        // While jobs of a checkpoint are on their way or at work, an empty line still knows who has had how much.
        let busy = self.busy_models();
        self.ready
            .retain(|token, line| !line.is_empty() || busy.contains(token));
        for (token, line) in &mut self.ready {
            let Out { kept, passed } = out.get(token).cloned().unwrap_or_default();
            if kept {
                continue;
            }
            if let Some(entry) = line.pop_where(|entry| passed.let_past(entry)) {
                let token = token.clone();
                let place = Place::Out {
                    entry: entry.clone(),
                    since: now,
                    offer: Offer::Open,
                };
                self.places.insert(entry.id, place);
                return Some((token, entry));
            }
        }
        None
    }

    fn busy_models(&self) -> HashSet<ModelToken> {
        let busy = self.places.values().filter_map(|place| match place {
            Place::Ready(_) => None,
            Place::Out { entry, .. } | Place::Taken { entry, .. } => Some(ModelToken::of(&entry.model)),
        });
        busy.collect()
    }

    fn out_by_model(&self, now: Instant) -> HashMap<ModelToken, Out> {
        let mut counted: HashMap<ModelToken, (u64, u64, Passed)> = HashMap::new();
        for place in self.places.values() {
            let Place::Out { entry, since, offer } = place else {
                continue;
            };
            let (out, beside, passed) = counted.entry(ModelToken::of(&entry.model)).or_default();
            match offer {
                Offer::Unknown => {}
                Offer::Passed => passed.0.push((entry.owner.clone(), entry.beside.clone())),
                Offer::Open => {
                    let stuck = now.saturating_duration_since(*since).as_secs() / STUCK.as_secs();
                    *out += 1;
                    *beside = (*beside).max(stuck.min(MOST_BESIDE));
                }
            }
        }
        let room = counted.into_iter().map(|(token, (out, beside, passed))| {
            let kept = out > beside;
            (token, Out { kept, passed })
        });
        room.collect()
    }

    /// A job of which nobody here knows whether it is in the stream. It keeps no other back.
    pub(super) fn note_out(&mut self, entry: QueueEntry, now: Instant) {
        let place = Place::Out {
            entry: entry.clone(),
            since: now,
            offer: Offer::Unknown,
        };
        self.places.insert(entry.id, place);
    }

    /// It could not be put into the stream.
    pub(super) fn not_out(&mut self, id: JobId) {
        if let Some(Place::Out { entry, .. }) = self.places.remove(&id) {
            self.put(entry, FairLine::undo);
        }
    }

    /// A node has it.
    pub(super) fn taken(&mut self, id: JobId, now: Instant) {
        if let Some(place) = self.places.get_mut(&id)
            && let Place::Out { entry, .. } = place
        {
            let entry = entry.clone();
            *place = Place::Taken {
                entry,
                last_sign: (0, now),
            };
        }
    }

    /// A node has had it and could not take it, or has given it back.
    pub(super) fn passed(&mut self, id: JobId, now: Instant) {
        if let Some(place) = self.places.get_mut(&id)
            && let Place::Out { entry, .. } | Place::Taken { entry, .. } = place
        {
            let entry = entry.clone();
            *place = Place::Out {
                entry,
                since: now,
                offer: Offer::Passed,
            };
        }
    }

    /// It has ended, or is another's concern.
    pub(super) fn remove(&mut self, id: JobId) {
        if let Some(Place::Ready(token)) = self.places.remove(&id)
            && let Some(line) = self.ready.get_mut(&token)
        {
            line.remove(id);
        }
    }

    /// Everything that is not out, in the order of the lines.
    pub(super) fn take_ready(&mut self) -> Vec<QueueEntry> {
        let mut entries = Vec::new();
        for (_, mut line) in std::mem::take(&mut self.ready) {
            entries.extend(std::iter::from_fn(|| line.pop(&[])));
        }
        for entry in &entries {
            self.places.remove(&entry.id);
        }
        entries
    }

    /// Everything that is out or taken.
    pub(super) fn take_out(&mut self) -> Vec<QueueEntry> {
        let (ready, out): (HashMap<_, _>, HashMap<_, _>) = std::mem::take(&mut self.places)
            .into_iter()
            .partition(|(_, place)| matches!(place, Place::Ready(_)));
        self.places = ready;
        let mut entries: Vec<QueueEntry> = out.into_values().filter_map(Place::into_entry).collect();
        entries.sort_by_key(|entry| entry.id);
        entries
    }

    /// The jobs that are out or taken and have been so for a while: somebody should look where they are.
    pub(super) fn in_doubt(&self, now: Instant) -> Vec<QueueEntry> {
        let doubtful = self.places.values().filter_map(|place| match place {
            Place::Ready(_) => None,
            Place::Out { entry, since, .. } => {
                (now.saturating_duration_since(*since) >= STUCK).then(|| entry.clone())
            }
            Place::Taken { entry, .. } => Some(entry.clone()),
        });
        doubtful.collect()
    }

    /// What was found of a job without a message in the stream: the number of its lease, or 0. Whether nothing has been heard
    /// of it for `silence`, so that it is to be put out again.
    pub(super) fn is_lost(&mut self, id: JobId, sign: u64, (now, silence): (Instant, Duration)) -> bool {
        match self.places.get_mut(&id) {
            Some(Place::Taken { last_sign, .. }) => {
                if last_sign.0 != sign {
                    *last_sign = (sign, now);
                }
                now.saturating_duration_since(last_sign.1) >= silence
            }
            // Nobody has said that it has it, and it is not there to be had.
            Some(Place::Out { .. }) => sign == 0,
            Some(Place::Ready(_)) | None => false,
        }
    }
}

impl Place {
    fn into_entry(self) -> Option<QueueEntry> {
        match self {
            Self::Ready(_) => None,
            Self::Out { entry, .. } | Self::Taken { entry, .. } => Some(entry),
        }
    }
}

/// What is out of one checkpoint.
#[derive(Clone, Debug, Default)]
struct Out {
    /// Nothing more may go out.
    kept: bool,
    passed: Passed,
}

/// Whose jobs nobody could take, and which models those need beside their checkpoint.
#[derive(Clone, Debug, Default)]
struct Passed(Vec<(ApiKeyId, ModelsBeside)>);

impl Passed {
    /// Whether somebody may be able to take this one: it is another owner's, or needs other models.
    fn let_past(&self, entry: &QueueEntry) -> bool {
        let of_owner = || self.0.iter().filter(|(owner, _)| *owner == entry.owner);
        of_owner().count() < PASSED_OF_OWNER && of_owner().all(|(_, beside)| *beside != entry.beside)
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, ModelId, Priority, SystemClock};

    use super::*;

    fn entry(id: u128, owner: &str, model: &str) -> QueueEntry {
        QueueEntry {
            id: JobId::from_u128(id),
            owner: ApiKeyId::new(owner),
            model: ModelId::new(model),
            beside: ModelsBeside::default(),
            stays: false,
            priority: Priority::Normal,
            work: 1,
        }
    }

    fn next(lines: &mut Lines, now: Instant) -> Option<u128> {
        lines.next_out(now).map(|(_, entry)| entry.id.as_uuid().as_u128())
    }

    #[test]
    fn one_of_each_checkpoint_is_out_and_turns_are_decided_late() {
        let now = SystemClock.now();
        let mut lines = Lines::default();
        for id in 1..=3 {
            lines.push(entry(id, "flood", "x"));
        }
        lines.push(entry(10, "flood", "y"));
        let mut out = [next(&mut lines, now), next(&mut lines, now)];
        out.sort_unstable();
        assert_eq!(out, [Some(1), Some(10)]);
        assert_eq!(next(&mut lines, now), None);
        lines.push(entry(20, "one", "x"));
        lines.taken(JobId::from_u128(1), now);
        assert_eq!(next(&mut lines, now), Some(20), "it came later and has had less");
    }

    #[test]
    fn a_line_that_is_empty_for_a_moment_knows_who_has_had_the_last_turn() {
        let now = SystemClock.now();
        let mut lines = Lines::default();
        lines.push(entry(1, "one", "x"));
        assert_eq!(next(&mut lines, now), Some(1));
        lines.push(entry(2, "one", "x"));
        lines.push(entry(3, "other", "x"));
        lines.taken(JobId::from_u128(1), now);
        assert_eq!(next(&mut lines, now), Some(3));
        for id in 1..=3 {
            lines.remove(JobId::from_u128(id));
        }
        assert_eq!(next(&mut lines, now), None);
        assert!(lines.ready.is_empty(), "and is forgotten when all has ended");
    }

    #[test]
    fn what_could_not_be_put_out_comes_first_again() {
        let now = SystemClock.now();
        let mut lines = Lines::default();
        lines.push(entry(1, "a", "x"));
        lines.push(entry(2, "a", "x"));
        assert_eq!(next(&mut lines, now), Some(1));
        lines.not_out(JobId::from_u128(1));
        assert_eq!(next(&mut lines, now), Some(1));
        lines.remove(JobId::from_u128(1));
        assert_eq!(next(&mut lines, now), Some(2));
    }

    #[test]
    fn a_job_that_nobody_can_take_lets_others_past() {
        let now = SystemClock.now();
        let mut lines = Lines::default();
        for (id, owner) in [(1, "a"), (2, "a"), (3, "b")] {
            lines.push(entry(id, owner, "x"));
        }
        assert_eq!(next(&mut lines, now), Some(1));
        lines.passed(JobId::from_u128(1), now);
        assert_eq!(
            next(&mut lines, now),
            Some(3),
            "not another one of the same owner"
        );
        assert_eq!(next(&mut lines, now), None);
        // And one that nobody says anything of, later.
        assert_eq!(
            next(&mut lines, now + STUCK),
            None,
            "its owner's would be passed as well"
        );
        lines.push(entry(4, "c", "x"));
        assert_eq!(next(&mut lines, now + STUCK), Some(4));
        lines.push(entry(5, "d", "x"));
        assert_eq!(next(&mut lines, now + STUCK), None);
    }

    #[test]
    fn a_job_whose_lora_nobody_has_lets_others_of_its_owner_past() {
        let now = SystemClock.now();
        let mut lines = Lines::default();
        let with_lora = |id: u128, lora: &str| {
            let mut entry = entry(id, "a", "x");
            entry.beside.loras.push(ModelId::new(lora));
            entry
        };
        for id in 1..=2 {
            lines.push(with_lora(id, "nowhere"));
        }
        lines.push(entry(3, "a", "x"));
        assert_eq!(next(&mut lines, now), Some(1));
        assert_eq!(next(&mut lines, now), None, "one is out");
        lines.passed(JobId::from_u128(1), now);
        assert_eq!(
            next(&mut lines, now),
            Some(3),
            "the second needs what the first does"
        );
        lines.taken(JobId::from_u128(3), now);
        assert_eq!(next(&mut lines, now), None);
        // Not one for each name that an owner makes up.
        for (id, lora) in (4..10).zip(["p", "q", "r", "s", "t", "u"]) {
            lines.push(with_lora(id, lora));
        }
        let mut tried = Vec::new();
        while let Some(id) = next(&mut lines, now) {
            lines.passed(JobId::from_u128(id), now);
            tried.push(id);
        }
        assert_eq!(tried, [4, 5, 6]);
    }

    #[test]
    fn a_taken_job_is_lost_after_a_silence_and_one_that_is_out_at_once() {
        let now = SystemClock.now();
        let silence = Duration::from_secs(100);
        let mut lines = Lines::default();
        lines.push(entry(1, "a", "x"));
        let id = JobId::from_u128(1);
        assert!(!lines.is_lost(id, 0, (now, silence)), "it waits in its line");
        next(&mut lines, now);
        assert!(lines.is_lost(id, 0, (now, silence)));
        lines.taken(id, now);
        assert!(!lines.is_lost(id, 5, (now, silence)));
        assert!(
            !lines.is_lost(id, 6, (now + silence, silence)),
            "its lease was renewed"
        );
        assert!(lines.is_lost(id, 6, (now + 2 * silence, silence)));
    }

    #[test]
    fn lines_are_emptied_in_order() {
        let now = SystemClock.now();
        let mut lines = Lines::default();
        for id in 1..=4 {
            lines.push(entry(id, "a", "x"));
        }
        next(&mut lines, now);
        lines.taken(JobId::from_u128(1), now);
        next(&mut lines, now);
        let ids = |entries: Vec<QueueEntry>| -> Vec<u128> {
            entries.iter().map(|entry| entry.id.as_uuid().as_u128()).collect()
        };
        assert_eq!(ids(lines.take_ready()), [3, 4]);
        assert_eq!(ids(lines.take_out()), [1, 2]);
        assert!(lines.places.is_empty() && lines.ready.is_empty());
    }
}
