//! Jobs that are ready to be claimed, in the order of their turns: start-time fair queueing over owners (Goyal, Vin and
//! Cheng, 1997), with the work of a job as its cost.
//!
//! Every owner has a point in virtual time at which its next job starts; the earliest goes first and moves on by the work
//! of its job. Time itself is the start of the job that went last, and an owner that comes back starts no earlier.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use pentimento_types::{ApiKeyId, JobId, Priority};

use crate::QueueEntry;

/// Jobs of one owner that are looked at for one that may go.
const MOST_LOOKED_AT: usize = 256;

/// Whether it is a new job, how urgent it is, its number: the least goes first.
type Rank = (bool, Reverse<Priority>, i64);

#[derive(Debug, Default)]
struct Line {
    /// When its next job starts.
    start: u128,
    jobs: BTreeMap<Rank, QueueEntry>,
}

/// Jobs that wait, with the turns of their owners. It has no clock and no lock: for implementations of [`crate::JobQueue`].
#[derive(Debug, Default)]
pub struct FairLine {
    now: u128,
    owners: HashMap<ApiKeyId, Line>,
    ranks: HashMap<JobId, (ApiKeyId, Rank)>,
    pushed: i64,
    /// The job that was taken out last, where it stood, and the work that was counted for it.
    last: Option<(JobId, Rank, u128)>,
}

impl FairLine {
    /// Whether this job waits.
    #[must_use]
    pub fn contains(&self, id: JobId) -> bool {
        self.ranks.contains_key(&id)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// A new job, behind the others of its owner that are as urgent.
    pub fn push(&mut self, entry: QueueEntry) {
        self.pushed += 1;
        let rank = (true, Reverse(entry.priority), self.pushed);
        self.put(rank, entry);
    }

    /// A job that was taken out before. It goes ahead of its owner's others, and its work has been counted.
    pub fn put_back(&mut self, entry: QueueEntry) {
        self.pushed += 1;
        // The one that came back last is the first.
        let rank = (false, Reverse(entry.priority), -self.pushed);
        self.put(rank, entry);
    }

    fn put(&mut self, rank: Rank, entry: QueueEntry) {
        let now = self.now;
        self.ranks.insert(entry.id, (entry.owner.clone(), rank));
        let line = self.owners.entry(entry.owner.clone()).or_default();
        line.start = line.start.max(now);
        line.jobs.insert(rank, entry);
    }

    /// A job that was taken out last, and that nobody has got: all is as it was before.
    pub fn undo(&mut self, entry: QueueEntry) {
        let Some((id, rank, work)) = self.last.take().filter(|(id, ..)| *id == entry.id) else {
            return self.put_back(entry);
        };
        self.ranks.insert(id, (entry.owner.clone(), rank));
        let now = self.now;
        let line = self.owners.entry(entry.owner.clone()).or_default();
        line.start = line.start.saturating_sub(work).max(now);
        line.jobs.insert(rank, entry);
    }

    /// Takes the next job out, of any owner but these.
    pub fn pop(&mut self, except: &[ApiKeyId]) -> Option<QueueEntry> {
        let may_go = self.owners.iter().filter(|(owner, _)| !except.contains(owner));
        let firsts = may_go.filter_map(|(owner, line)| Some((owner, line, *line.jobs.first_key_value()?.0)));
        let next = self.first_to_start(firsts)?;
        self.take(next)
    }

    /// Takes the next job out that may go. Of an owner whose first ones may not, some later ones are looked at.
    pub fn pop_where(&mut self, may_go: impl Fn(&QueueEntry) -> bool) -> Option<QueueEntry> {
        let firsts = self.owners.iter().filter_map(|(owner, line)| {
            let mut jobs = line.jobs.iter().take(MOST_LOOKED_AT);
            let (rank, _) = jobs.find(|(_, entry)| may_go(entry))?;
            Some((owner, line, *rank))
        });
        let next = self.first_to_start(firsts)?;
        self.take(next)
    }

    /// Of one job of each owner.
    fn first_to_start<'a>(
        &self,
        jobs: impl Iterator<Item = (&'a ApiKeyId, &'a Line, Rank)>,
    ) -> Option<(u128, ApiKeyId, Rank)> {
        let starts = jobs.map(|(owner, line, rank)| (line.start.max(self.now), rank, owner));
        let (start, rank, owner) = starts.min_by_key(|(start, rank, _)| (*start, *rank))?;
        Some((start, owner.clone(), rank))
    }

    fn take(&mut self, (start, owner, rank): (u128, ApiKeyId, Rank)) -> Option<QueueEntry> {
        self.now = start;
        let line = self.owners.get_mut(&owner)?;
        let entry = line.jobs.remove(&rank)?;
        let (is_new, ..) = rank;
        let work = u128::from(if is_new { entry.work.max(1) } else { 0 });
        line.start = start + work;
        self.last = Some((entry.id, rank, work));
        self.ranks.remove(&entry.id);
        self.forget_the_idle();
        Some(entry)
    }

    /// Takes a job out, wherever it stands.
    pub fn remove(&mut self, id: JobId) {
        if let Some((owner, rank)) = self.ranks.remove(&id)
            && let Some(line) = self.owners.get_mut(&owner)
        {
            line.jobs.remove(&rank);
        }
        self.forget_the_idle();
    }

    /// An owner without jobs is remembered while it has had more than the others.
    fn forget_the_idle(&mut self) {
        let now = self.now;
        self.owners
            .retain(|_, line| !line.jobs.is_empty() || line.start > now);
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::ModelId;

    use super::*;

    fn entry(id: u128, owner: &str, work: u64) -> QueueEntry {
        QueueEntry {
            id: JobId::from_u128(id),
            owner: ApiKeyId::new(owner),
            model: ModelId::new("demo"),
            beside: crate::ModelsBeside::default(),
            stays: false,
            priority: Priority::Normal,
            work,
        }
    }

    fn ids<const N: usize>(numbers: [u128; N]) -> Vec<JobId> {
        numbers.map(JobId::from_u128).to_vec()
    }

    fn order(line: &mut FairLine) -> Vec<JobId> {
        let entries = std::iter::from_fn(|| line.pop(&[]));
        entries.map(|entry| entry.id).collect()
    }

    #[test]
    fn owners_get_the_same_work_and_not_the_same_number_of_jobs() {
        let mut line = FairLine::default();
        for id in 1..=4 {
            line.push(entry(id, "large", 300));
        }
        for id in 11..=19 {
            line.push(entry(id, "small", 100));
        }
        assert_eq!(
            order(&mut line),
            ids([1, 11, 12, 13, 2, 14, 15, 16, 3, 17, 18, 19, 4])
        );
    }

    #[test]
    fn who_comes_later_is_next_and_owes_or_is_owed_nothing() {
        let mut line = FairLine::default();
        for id in 1..=200 {
            line.push(entry(id, "flood", 100));
        }
        for id in 1..=50 {
            assert_eq!(line.pop(&[]).unwrap().id, JobId::from_u128(id));
        }
        line.push(entry(1000, "one", 7));
        line.push(entry(1001, "one", 7));
        let next = order(&mut line);
        assert_eq!(
            next[..4],
            ids([1000, 1001, 51, 52]),
            "not one for each of the fifty"
        );
    }

    #[test]
    fn of_one_owner_the_urgent_go_first_and_what_comes_back_before_them() {
        let mut line = FairLine::default();
        line.push(entry(1, "a", 1));
        let back = line.pop(&[]).unwrap();
        line.push(entry(2, "a", 1));
        for (id, priority) in [(3, Priority::Low), (4, Priority::High), (5, Priority::High)] {
            line.push(QueueEntry {
                priority,
                ..entry(id, "a", 1)
            });
        }
        line.put_back(back);
        line.remove(JobId::from_u128(5));
        assert!(line.contains(JobId::from_u128(1)) && !line.contains(JobId::from_u128(5)));
        assert_eq!(order(&mut line), ids([1, 4, 2, 3]));
    }

    #[test]
    fn what_may_not_go_stays_where_it_is_and_its_owner_keeps_its_turn() {
        let mut line = FairLine::default();
        for id in 1..=3 {
            line.push(entry(id, "a", 10));
        }
        line.push(entry(4, "b", 10));
        let first = JobId::from_u128(1);
        let next = |line: &mut FairLine| line.pop_where(|entry| entry.id != first).map(|entry| entry.id);
        assert_eq!(next(&mut line), Some(JobId::from_u128(2)));
        assert_eq!(next(&mut line), Some(JobId::from_u128(4)));
        assert_eq!(next(&mut line), Some(JobId::from_u128(3)));
        assert_eq!(next(&mut line), None);
        assert_eq!(order(&mut line), [first]);
    }

    #[test]
    fn a_job_that_nobody_got_costs_its_owner_no_turn() {
        let mut line = FairLine::default();
        for id in 1..=2 {
            line.push(entry(id, "first", 4));
        }
        let taken = line.pop(&[]).unwrap();
        line.undo(taken);
        let taken = line.pop(&[]).unwrap();
        assert_eq!(taken.id, JobId::from_u128(1));
        line.push(entry(3, "second", 4));
        assert_eq!(order(&mut line), ids([3, 2]));
    }

    #[test]
    fn an_owner_that_is_left_out_comes_later_and_the_idle_are_forgotten() {
        let mut line = FairLine::default();
        line.push(entry(1, "a", 5));
        line.push(entry(2, "b", 5));
        let a = ApiKeyId::new("a");
        assert_eq!(
            line.pop(std::slice::from_ref(&a)).unwrap().id,
            JobId::from_u128(2)
        );
        assert!(line.pop(std::slice::from_ref(&a)).is_none());
        assert_eq!(line.pop(&[]).unwrap().id, JobId::from_u128(1));
        line.push(entry(3, "c", 100));
        line.pop(&[]).unwrap();
        line.push(entry(4, "d", 100));
        line.push(entry(5, "d", 100));
        assert_eq!(order(&mut line), ids([4, 5]));
        assert!(line.owners.len() <= 2, "{:?}", line.owners);
    }
}
