//! The records of a cluster's jobs, as one node sees them.
//!
//! Each job has a home: the node that accepted it, whose own journal has the durable record and whose outbox tells its end.
//! Beside it the bucket of the broker has a copy of every job, which all nodes follow and by which they agree who changes it.
//! The journal is there before an id is given out, so that jobs are accepted, run and answered for without the broker too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use pentimento_jobs::{
    AgeClock, Inserted, JobCounts, JobFilter, JobLimits, JobPlace, JobStore, JobsError, KEY_LIFE, QueueEntry,
    SqliteJobs, Transition, key_stands, known_request,
};
use pentimento_types::{ApiKeyId, Clock, Job, JobId, JobState, describe_chain};
use tokio::sync::broadcast;

use crate::connection::Connection;
use crate::deletions::Deletions;
use crate::envelope::{LARGEST, SharedJob};
use crate::marks::Marks;
use crate::mirror::Mirror;
use crate::names::{self, Named};
use crate::shared::{Shared, unfinished};
use crate::subjects::{number_key, request_key};
use crate::tasks::Tasks;
use crate::{NodeId, asking, keeper, queue};

/// The records of all jobs of a cluster. Clones share them.
#[derive(Clone, Debug)]
pub struct ClusterJobs {
    pub(crate) shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// What a node keeps on its own disk.
pub(crate) struct Kept {
    pub(crate) own: SqliteJobs,
    pub(crate) deletions: Deletions,
    /// Of the journal.
    pub(crate) limits: JobLimits,
}

/// What became of a job's names.
enum Names {
    /// They are its own, and are written under these keys.
    Ours(Vec<String>),
    Known(JobId),
}

impl ClusterJobs {
    pub(crate) async fn start(
        node: NodeId,
        Kept {
            own,
            deletions,
            limits,
        }: Kept,
        (connection, queue): (Connection, Arc<queue::Shared>),
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JobsError> {
        let unsettled = queue.unsettled();
        let shared = Arc::new(Shared {
            mirror: Mirror::new(limits),
            ages: AgeClock::new(Arc::clone(&clock)),
            node,
            own,
            connection,
            queue,
            clock,
            in_step_since: Mutex::default(),
            unsettled,
            deletions,
            being_forgotten: Marks::default(),
            being_stored: Marks::default(),
            names_in_doubt: Mutex::default(),
        });
        for job in shared.own.list(&unfinished()).await? {
            if !shared.connection.is_up() && !job.stays && job.state != JobState::Fetching {
                shared.queue.note_out(QueueEntry::of(&job));
            }
            shared.note_ours(job);
        }
        let tasks = Tasks::default();
        tasks.spawn(keeper::follow(Arc::clone(&shared)));
        tasks.spawn(keeper::mend(Arc::clone(&shared)));
        tasks.spawn(asking::answer(Arc::clone(&shared)));
        Ok(Self {
            shared,
            _tasks: Arc::new(tasks),
        })
    }

    /// Every change of a job from now on, whichever node brought it about. Who reads too slowly misses some.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Arc<Job>> {
        self.shared.mirror.changes()
    }

    /// The node that runs a job, where it runs.
    #[must_use]
    pub fn holder(&self, id: JobId) -> Option<NodeId> {
        self.shared.mirror.get(id)?.holder
    }

    /// The node that has accepted a job.
    #[must_use]
    pub fn home(&self, id: JobId) -> Option<NodeId> {
        Some(self.shared.mirror.get(id)?.home)
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.node
    }

    /// The journal of this node.
    #[must_use]
    pub fn own(&self) -> &SqliteJobs {
        &self.shared.own
    }
}

impl Shared {
    /// Takes the names of a new job, as far as the broker is there to ask.
    async fn take_names(&self, job: &Job) -> Result<Names, JobsError> {
        match Box::pin(self.take_names_of_cluster(job)).await {
            Err(error @ JobsError::Backend { .. }) => {
                tracing::debug!(
                    error = describe_chain(&error),
                    "names are this node's alone for now"
                );
                self.names_known_here(job)
            }
            taken => taken,
        }
    }

    async fn take_names_of_cluster(&self, job: &Job) -> Result<Names, JobsError> {
        // One that was accepted while its node could not ask has no entry among the names.
        if let Names::Known(first) = self.names_known_here(job)? {
            return Ok(Names::Known(first));
        }
        let now = self.ages.now(KEY_LIFE);
        let mut ours = Vec::new();
        if let Some(request) = &job.idempotency {
            let key = request_key(&job.owner, &request.key);
            let of_same_key = |first: &Job| {
                let is_same = first
                    .idempotency
                    .as_ref()
                    .is_some_and(|known| known.key == request.key);
                is_same && first.owner == job.owner && key_stands(first, now)
            };
            match self.take_name(&key, job.id, of_same_key).await? {
                Named::Ours => ours.push(key),
                Named::Taken(first) => return known_request(&first, request).map(Names::Known),
                Named::InDoubt => return Err(JobsError::KeyInDoubt),
            }
        }
        if let Some(number) = job.dialect.number {
            let key = number_key(&job.dialect.name, number);
            let of_same_number = |other: &Job| other.dialect.number == Some(number);
            match self.take_name(&key, job.id, of_same_number).await {
                Ok(Named::Ours) => ours.push(key),
                Ok(Named::Taken(_) | Named::InDoubt) => {
                    self.give_names_back(job.id, ours).await;
                    return Err(JobsError::NumberTaken);
                }
                Err(error) => {
                    self.give_names_back(job.id, ours).await;
                    return Err(error);
                }
            }
        }
        Ok(Names::Ours(ours))
    }

    /// Without the broker: as far as this node has heard.
    fn names_known_here(&self, job: &Job) -> Result<Names, JobsError> {
        if let Some(request) = &job.idempotency
            && let Some(first) = self.mirror.find_by_key(&job.owner, &request.key)
            && key_stands(&first, self.ages.now(KEY_LIFE))
        {
            return known_request(&first, request).map(Names::Known);
        }
        if let Some(number) = job.dialect.number
            && self.mirror.find_by_number(&job.dialect.name, number).is_some()
        {
            return Err(JobsError::NumberTaken);
        }
        Ok(Names::Ours(Vec::new()))
    }

    async fn give_names_back(&self, id: JobId, keys: Vec<String>) {
        if keys.is_empty() {
            return;
        }
        if let Ok(rooms) = self.connection.rooms().await {
            for key in keys {
                names::give_back(&rooms.names, &key, id).await;
            }
        }
    }
}

#[async_trait]
impl JobStore for ClusterJobs {
    fn keeps_jobs(&self) -> bool {
        true
    }

    fn is_ours(&self, job: &Job) -> bool {
        // What is in the journal alone is this node's.
        self.shared.mirror.get(job.id).is_none_or(|seen| {
            if job.state == JobState::Running {
                seen.holder.as_ref() == Some(&self.shared.node)
            } else {
                seen.home == self.shared.node
            }
        })
    }

    fn sees_all(&self) -> bool {
        self.shared.has_been_in_step()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError> {
        self.shared.own.reserve_within(owner, most)
    }

    async fn insert(&self, job: Job, place: JobPlace) -> Result<Inserted, JobsError> {
        let shared = &self.shared;
        let record = SharedJob::new(shared.node.clone(), None, job.clone());
        if let Err(too_large) = record.encode() {
            return Err(JobsError::TooLarge {
                bytes: too_large.0,
                limit: LARGEST,
            });
        }
        // Until it is shared or owed to the cluster: whoever finds one of its names in between waits for it.
        let _marked = shared.being_stored.mark_while(job.id);
        let keys = match shared.take_names(&job).await? {
            Names::Ours(keys) => keys,
            Names::Known(first) => return Ok(Inserted::Known(first)),
        };
        let inserted = shared.own.insert(job.clone(), place).await;
        if !matches!(inserted, Ok(Inserted::New)) {
            shared.give_names_back(job.id, keys).await;
            return inserted;
        }
        let id = job.id;
        shared.note_ours(job.clone());
        // Before the id is given out, so that any node knows it; but an id that is safe is given out in any case.
        if let Err(error) = shared.share(job).await {
            tracing::debug!(job = %id, error = describe_chain(&error), "the cluster hears of it later");
            shared.unsettled.add(id);
        }
        inserted
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        self.shared.find(id).await
    }

    async fn find_by_number(&self, dialect: &str, number: u64) -> Result<Option<Job>, JobsError> {
        if let Some(job) = self.shared.mirror.find_by_number(dialect, number) {
            return self.shared.find(job.id).await;
        }
        if let Some(job) = self.shared.own.find_by_number(dialect, number).await? {
            return Ok(Some(job));
        }
        // Another node may have taken it a moment ago.
        let Ok(rooms) = self.shared.connection.rooms().await else {
            return Ok(None);
        };
        match names::holder(&rooms.names, &number_key(dialect, number)).await? {
            Some(id) => {
                let job = self.shared.find(id).await?;
                Ok(job.filter(|job| job.dialect.name == dialect && job.dialect.number == Some(number)))
            }
            None => Ok(None),
        }
    }

    async fn find_by_key(&self, owner: &ApiKeyId, key: &str) -> Result<Option<Job>, JobsError> {
        let shared = &self.shared;
        let own = shared.own.find_by_key(owner, key).await?;
        let seen = shared.mirror.find_by_key(owner, key);
        let mut latest = own.map(|job| job.id).max(seen.map(|job| job.id));
        if latest.is_none()
            && let Ok(rooms) = shared.connection.rooms().await
        {
            latest = names::holder(&rooms.names, &request_key(owner, key)).await?;
        }
        let Some(id) = latest else { return Ok(None) };
        let now = shared.ages.now(KEY_LIFE);
        let has_it = |job: &Job| {
            let request = job.idempotency.as_ref();
            job.owner == *owner && request.is_some_and(|request| request.key == key) && key_stands(job, now)
        };
        Ok(shared.find(id).await?.filter(has_it))
    }

    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let job = self.shared.change(id, transition).await?;
        if job.state.is_final() {
            self.shared.queue.ended(id);
        }
        Ok(job)
    }

    async fn wait_until_ended(&self, id: JobId) -> Result<Job, JobsError> {
        loop {
            if let Some(mut end) = self.shared.mirror.end_of(id) {
                // An error means that the copy was given up, which it is only some time after its end.
                if let Ok(ended) = end.wait_for(Option::is_some).await
                    && let Some(job) = ended.as_deref()
                {
                    return Ok(job.clone());
                }
            }
            match self.get(id).await? {
                Some(job) if job.state.is_final() => return Ok(job),
                // Read into the mirror just now.
                Some(_) => tokio::task::yield_now().await,
                None => return Err(JobsError::NotFound { id }),
            }
        }
    }

    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError> {
        let of_mirror = self.shared.mirror.list(filter);
        let all_open = !filter.states.is_empty() && !filter.states.iter().any(|state| state.is_final());
        if all_open {
            // None of them is in the journal alone.
            return Ok(of_mirror);
        }
        // Open ones of the journal may be behind those of the mirror.
        let ended = filter.states.iter().copied().filter(|state| state.is_final());
        let of_journal = JobFilter {
            states: ended.collect(),
            ..filter.clone()
        };
        let own = self.shared.own.list(&of_journal).await?;
        let mut merged: BTreeMap<JobId, Job> = own.into_iter().map(|job| (job.id, job)).collect();
        for job in of_mirror {
            merged.insert(job.id, job);
        }
        Ok(filter.choose(merged.values()))
    }

    async fn counts(&self) -> Result<JobCounts, JobsError> {
        let counts = self.shared.own.counts().await?;
        let elsewhere = self
            .shared
            .mirror
            .run_elsewhere(&self.shared.node)
            .min(counts.queued);
        Ok(JobCounts {
            queued: counts.queued - elsewhere,
            running: counts.running + elsewhere,
            ..counts
        })
    }

    async fn remove(&self, id: JobId) -> Result<bool, JobsError> {
        let shared = &self.shared;
        let seen = shared.mirror.get(id);
        let own = shared.own.get(id).await?;
        let removed = shared.own.remove(id).await?;
        let is_theirs = seen
            .as_ref()
            .is_some_and(|seen| seen.job.state.is_final() && seen.home != shared.node);
        let is_gone = removed || is_theirs;
        // Its home hears of it, and forgets it as well.
        if is_gone && !shared.forget(id, own.as_ref()).await {
            shared.deletions.keep().await?;
        }
        Ok(is_gone)
    }

    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError> {
        let expired = self.shared.own.expire(finished_before).await?;
        for id in &expired {
            // What the cluster is not told of now, it forgets by itself.
            self.shared.forget(*id, None).await;
        }
        self.shared.mirror.forget_lost(&self.shared.node, finished_before);
        Ok(expired)
    }
}

impl Shared {
    fn has_been_in_step(&self) -> bool {
        use pentimento_types::SystemClock;
        /// So long do other nodes get to bring their jobs to a broker that was empty.
        const LONG_ENOUGH: std::time::Duration = std::time::Duration::from_secs(60);
        let since = *self.in_step_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| SystemClock.now().saturating_duration_since(since) >= LONG_ENOUGH)
    }
}
