//! What is known here of all jobs of the cluster: a copy of the bucket in memory, which the keeper keeps up to date, so that
//! any node answers for any job without asking anybody.
//!
//! A copy may be behind and is never ahead: each entry knows the revision that it was read at, and a change that is made of an
//! older one is refused by the broker. Of jobs that have ended as many are kept as one machine remembers; older ones are read
//! from the broker when somebody asks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pentimento_jobs::{JobFilter, JobLimits, is_later};
use pentimento_types::{ApiKeyId, Job, JobId, JobState};
use tokio::sync::{broadcast, watch};

use crate::NodeId;
use crate::envelope::SharedJob;

/// Changes that a slow listener may be behind.
const CHANGES: usize = 4096;
/// What a record takes in memory beside its texts, about.
const BESIDE: usize = 1024;

/// One job as it was last seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) job: Arc<Job>,
    pub(crate) home: NodeId,
    pub(crate) holder: Option<NodeId>,
    /// Of the value in the bucket; 0 where none has been seen since the line stands.
    pub(crate) revision: u64,
    /// The version of the form in which the record is written.
    pub(crate) form: u32,
    /// Whether the job is further here than in the bucket, which has forgotten it or has not been told.
    pub(crate) is_ahead: bool,
}

impl Seen {
    pub(crate) fn of(shared: SharedJob, revision: u64) -> Self {
        Self {
            form: shared.form(),
            job: Arc::new(shared.job),
            home: shared.home,
            holder: shared.holder,
            revision,
            is_ahead: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Mirror {
    limits: JobLimits,
    state: Mutex<State>,
    changes: broadcast::Sender<Arc<Job>>,
}

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<JobId, Entry>,
    numbers: HashMap<(String, u64), JobId>,
    keys: HashMap<(ApiKeyId, String), JobId>,
    /// In the order in which their ends were seen.
    ended: VecDeque<JobId>,
    ended_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    bytes: u64,
    ended: watch::Sender<Option<Arc<Job>>>,
}

impl Mirror {
    pub(crate) fn new(limits: JobLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES),
        }
    }

    /// Every change of a job, whoever brought it about.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Arc<Job>> {
        self.changes.subscribe()
    }

    /// Notes what was read or written. What was seen once is not taken back, whatever a broker says that has forgotten it.
    pub(crate) fn note(&self, seen: Seen) {
        let mut state = self.lock();
        let id = seen.job.id;
        let changed = match state.jobs.get_mut(&id) {
            Some(entry) => entry.renew(seen),
            None => {
                let (ended, _) = watch::channel(None);
                let bytes = size_of(&seen.job);
                let job = Arc::clone(&seen.job);
                state.jobs.insert(id, Entry { seen, bytes, ended });
                Some((None, job))
            }
        };
        let Some((before, job)) = changed else { return };
        if let Some(before) = &before {
            state.forget_names(before);
        }
        state.note_names(&job);
        if job.state.is_final() && before.is_none_or(|before| !before.state.is_final()) {
            state.end(&job, self.limits);
        }
        drop(state);
        // Nobody need listen.
        let _ = self.changes.send(job);
    }

    /// The bucket does not have it any more.
    pub(crate) fn remove(&self, id: JobId) -> Option<Seen> {
        let mut state = self.lock();
        let removed = state.remove(id)?;
        state.ended.retain(|other| *other != id);
        Some(removed)
    }

    /// The line stands anew: what was read before says nothing about revisions.
    pub(crate) fn begin_epoch(&self) {
        for entry in self.lock().jobs.values_mut() {
            entry.seen.revision = 0;
        }
    }

    /// The same for one job.
    pub(crate) fn begin_epoch_of(&self, id: JobId) {
        if let Some(entry) = self.lock().jobs.get_mut(&id) {
            entry.seen.revision = 0;
        }
    }

    /// Forgets jobs of other nodes that the broker has lost, and that are too old to come back.
    pub(crate) fn forget_lost(&self, node: &NodeId, made_before: SystemTime) {
        let mut state = self.lock();
        let lost = state.jobs.values().filter(|entry| {
            entry.seen.revision == 0 && entry.seen.home != *node && entry.seen.job.created_at < made_before
        });
        let lost: Vec<JobId> = lost.map(|entry| entry.seen.job.id).collect();
        for id in lost {
            state.remove(id);
            state.ended.retain(|other| *other != id);
        }
    }

    pub(crate) fn get(&self, id: JobId) -> Option<Seen> {
        self.lock().jobs.get(&id).map(|entry| entry.seen.clone())
    }

    pub(crate) fn find_by_number(&self, dialect: &str, number: u64) -> Option<Arc<Job>> {
        let state = self.lock();
        let id = state.numbers.get(&(dialect.to_owned(), number))?;
        state.job(*id)
    }

    /// The latest job of an owner's key. Whether the key still stands for it is asked of the job.
    pub(crate) fn find_by_key(&self, owner: &ApiKeyId, key: &str) -> Option<Arc<Job>> {
        let state = self.lock();
        let id = state.keys.get(&(owner.clone(), key.to_owned()))?;
        state.job(*id)
    }

    /// Where the end of a job will be told; None for one that is not known.
    pub(crate) fn end_of(&self, id: JobId) -> Option<watch::Receiver<Option<Arc<Job>>>> {
        self.lock().jobs.get(&id).map(|entry| entry.ended.subscribe())
    }

    pub(crate) fn list(&self, filter: &JobFilter) -> Vec<Job> {
        let state = self.lock();
        let entries = state.jobs.range(filter.range());
        filter.choose(entries.map(|(_, entry)| entry.seen.job.as_ref()))
    }

    /// Jobs of this node that others run.
    pub(crate) fn run_elsewhere(&self, node: &NodeId) -> usize {
        let state = self.lock();
        let ours = state.jobs.values().filter(|entry| entry.seen.home == *node);
        ours.filter(|entry| {
            entry.seen.job.state == JobState::Running && entry.seen.holder.as_ref() != Some(node)
        })
        .count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The job before and after, where it has changed.
    fn renew(&mut self, seen: Seen) -> Option<(Option<Arc<Job>>, Arc<Job>)> {
        let is_old_news = seen.revision != 0 && seen.revision < self.seen.revision;
        let known = &self.seen.job;
        // A broker that has lost its last minutes: the copy that is further counts.
        let takes_back = is_later(known, &seen.job);
        // What is only known here is older than what was read, unless it is further.
        let is_behind = seen.revision == 0 && !is_later(&seen.job, known);
        if is_old_news || is_behind {
            return None;
        }
        if takes_back {
            (self.seen.revision, self.seen.form) = (seen.revision, seen.form);
            self.seen.is_ahead = true;
            return None;
        }
        let before = Arc::clone(known);
        let changed = *before != *seen.job || self.seen.holder != seen.holder;
        let revision = if seen.revision == 0 {
            self.seen.revision
        } else {
            seen.revision
        };
        self.seen = Seen { revision, ..seen };
        changed.then(|| (Some(before), Arc::clone(&self.seen.job)))
    }
}

impl State {
    fn job(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs.get(&id).map(|entry| Arc::clone(&entry.seen.job))
    }

    /// Tells who waits, and makes room for what has ended.
    fn end(&mut self, job: &Arc<Job>, limits: JobLimits) {
        if let Some(entry) = self.jobs.get_mut(&job.id) {
            entry.bytes = size_of(job);
            entry.ended.send_replace(Some(Arc::clone(job)));
            self.ended_bytes += entry.bytes;
            self.ended.push_back(job.id);
        }
        while self.ended.len() > limits.finished || self.ended_bytes > limits.finished_bytes {
            let Some(oldest) = self.ended.pop_front() else {
                break;
            };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: JobId) -> Option<Seen> {
        let entry = self.jobs.remove(&id)?;
        if entry.seen.job.state.is_final() {
            self.ended_bytes = self.ended_bytes.saturating_sub(entry.bytes);
        }
        self.forget_names(&entry.seen.job);
        Some(entry.seen)
    }

    fn note_names(&mut self, job: &Job) {
        if let Some(number) = job.dialect.number {
            self.numbers.insert((job.dialect.name.clone(), number), job.id);
        }
        let Some(request) = &job.idempotency else { return };
        let key = (job.owner.clone(), request.key.clone());
        // Ids sort by the time of their making: an older job does not take the name of a later one.
        let latest = self.keys.entry(key).or_insert(job.id);
        *latest = (*latest).max(job.id);
    }

    fn forget_names(&mut self, job: &Job) {
        if let Some(number) = job.dialect.number {
            let name = (job.dialect.name.clone(), number);
            if self.numbers.get(&name) == Some(&job.id) {
                self.numbers.remove(&name);
            }
        }
        if let Some(request) = &job.idempotency {
            let name = (job.owner.clone(), request.key.clone());
            if self.keys.get(&name) == Some(&job.id) {
                self.keys.remove(&name);
            }
        }
    }
}

/// About what a record takes: its texts, which are all that a caller can make large, and what is beside them.
fn size_of(job: &Job) -> u64 {
    let recipe = &job.recipe;
    let texts = [
        recipe.prompt.len(),
        recipe.negative_prompt.as_ref().map_or(0, String::len),
        job.dialect.note.as_ref().map_or(0, String::len),
        job.delivery.webhook.as_ref().map_or(0, String::len),
    ];
    (BESIDE + texts.iter().sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use pentimento_jobs::Transition;
    use pentimento_jobs::conformance::sample_job;

    use super::*;

    fn seen(id: u128, revision: u64) -> Seen {
        let job = sample_job(JobId::from_u128(id), SystemTime::UNIX_EPOCH);
        Seen::of(SharedJob::new("a".parse().unwrap(), None, job), revision)
    }

    fn after(seen: &Seen, transition: Transition, revision: u64) -> Seen {
        let mut job = Job::clone(&seen.job);
        transition.apply(&mut job, SystemTime::UNIX_EPOCH).unwrap();
        Seen {
            job: Arc::new(job),
            revision,
            ..seen.clone()
        }
    }

    fn state(mirror: &Mirror) -> Option<(JobState, u64)> {
        let seen = mirror.get(JobId::from_u128(1))?;
        Some((seen.job.state, seen.revision))
    }

    #[test]
    fn news_that_come_late_change_nothing() {
        let mirror = Mirror::new(JobLimits::in_number(10, 10));
        let queued = seen(1, 5);
        let running = after(&queued, Transition::Start { attempt: 0 }, 7);
        mirror.note(running.clone());
        mirror.note(queued.clone());
        assert_eq!(state(&mirror), Some((JobState::Running, 7)));
        // The same again, as a watch brings what was written here.
        let mut changes = mirror.changes();
        mirror.note(running);
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn a_broker_that_has_forgotten_takes_nothing_back() {
        let mirror = Mirror::new(JobLimits::in_number(10, 10));
        let queued = seen(1, 5);
        let running = after(&queued, Transition::Start { attempt: 0 }, 70);
        mirror.note(running.clone());
        mirror.begin_epoch();
        mirror.note(queued.clone());
        let known = Some((JobState::Running, 5));
        assert_eq!(state(&mirror), known, "to be written over what is there");
        let ended = after(&running, Transition::Cancel, 8);
        mirror.note(ended);
        mirror.begin_epoch();
        mirror.note(Seen {
            revision: 6,
            ..queued
        });
        assert_eq!(state(&mirror), Some((JobState::Cancelled, 6)));
        assert!(mirror.end_of(JobId::from_u128(1)).unwrap().borrow().is_some());
    }

    #[test]
    fn what_has_ended_is_bounded_and_names_go_with_their_jobs() {
        let mirror = Mirror::new(JobLimits::in_number(10, 2));
        for id in 1..=3 {
            let mut job = Job::clone(&seen(id, 1).job);
            job.dialect.number = Some(7);
            job.idempotency = Some(pentimento_types::Idempotency {
                key: "once".to_owned(),
                digest: "d".to_owned(),
            });
            let queued = Seen {
                job: Arc::new(job),
                ..seen(id, 1)
            };
            mirror.note(queued.clone());
            mirror.note(after(&queued, Transition::Cancel, 2));
        }
        assert_eq!(state(&mirror), None, "the first is forgotten");
        let owner = ApiKeyId::anonymous();
        let latest = mirror.find_by_key(&owner, "once").map(|job| job.id);
        assert_eq!(latest, Some(JobId::from_u128(3)));
        assert!(mirror.find_by_number("novita", 7).is_some());
        for id in 1..=3 {
            mirror.remove(JobId::from_u128(id));
        }
        let state = mirror.lock();
        assert!(state.keys.is_empty() && state.numbers.is_empty() && state.ended.is_empty());
        assert_eq!(state.ended_bytes, 0);
    }

    #[test]
    fn what_the_broker_has_lost_is_forgotten_when_it_is_old_and_not_ours() {
        let mirror = Mirror::new(JobLimits::in_number(10, 10));
        mirror.note(seen(1, 4));
        mirror.begin_epoch();
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        mirror.forget_lost(&"a".parse().unwrap(), later);
        assert!(state(&mirror).is_some(), "its own node has its record");
        mirror.forget_lost(&"b".parse().unwrap(), later);
        assert_eq!(state(&mirror), None);
    }
}
