//! Keeps mirror, bucket and journal in step: follows every change of the bucket, brings into it what it does not have, and takes
//! this node's jobs back when the broker has been away for too long.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::{Entry, Operation};
use futures::StreamExt as _;
use pentimento_jobs::{JobFilter, JobStore as _, JobsError, QueueEntry, is_later};
use pentimento_types::{Clock as _, Job, JobId, JobState, SystemClock, describe_chain};

use crate::envelope::{SharedJob, Unreadable};
use crate::mirror::Seen;
use crate::settings::LEASES_OF_SILENCE;
use crate::shared::{Shared, unfinished};
use crate::sharing::replaces;
use crate::subjects::job_of;

/// After something that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks whether everything is in step.
const ROUND: Duration = Duration::from_secs(2);
/// Ended jobs that are brought to a broker that has lost them.
const BRING_BACK: usize = 1000;

/// Follows the bucket for as long as the store lives.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut epochs = shared.connection.epochs();
    loop {
        if !shared.connection.is_up() {
            tokio::select! {
                _ = epochs.changed() => {}
                () = SystemClock.sleep_until(SystemClock.now() + PAUSE) => {}
            }
            continue;
        }
        epochs.mark_unchanged();
        let followed = tokio::select! {
            followed = shared.follow_once() => followed,
            // The line stands anew, to a broker that may have lost everything or be another one.
            _ = epochs.changed() => Ok(()),
        };
        shared.set_in_step(false);
        if let Err(error) = followed {
            tracing::debug!(
                error = describe_chain(&error),
                "the jobs of the cluster cannot be followed"
            );
            SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
        }
    }
}

/// Brings everything in step for as long as the store lives.
pub(crate) async fn mend(shared: Arc<Shared>) {
    let epochs = shared.connection.epochs();
    let mut last_up = SystemClock.now();
    // What was mended, of the line as it stands now.
    let mut mended_epoch = None;
    loop {
        let epoch = *epochs.borrow();
        let mended = if shared.connection.is_up() {
            last_up = SystemClock.now();
            if shared.is_in_step() {
                let (is_first, is_new) = (mended_epoch.is_none(), mended_epoch != Some(epoch));
                let mended = shared.mend_bucket(is_first, is_new).await;
                if mended.is_ok() {
                    mended_epoch = Some(epoch);
                }
                mended
            } else {
                Ok(())
            }
        } else {
            shared.work_alone(last_up).await
        };
        if let Err(error) = mended {
            tracing::debug!(
                error = describe_chain(&error),
                "jobs and cluster are not in step yet"
            );
        }
        tokio::select! {
            () = shared.mend.notified() => {
                // Not at once again and again, while the broker is on its way up or down.
                SystemClock.sleep_until(SystemClock.now() + PAUSE / 10).await;
            }
            () = SystemClock.sleep_until(SystemClock.now() + ROUND) => {}
        }
    }
}

impl Shared {
    pub(crate) fn is_in_step(&self) -> bool {
        self.in_step_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn set_in_step(&self, is_in_step: bool) {
        let mut since = self.in_step_since.lock().unwrap_or_else(PoisonError::into_inner);
        if is_in_step != since.is_some() {
            *since = is_in_step.then(|| SystemClock.now());
            drop(since);
            self.mend.notify_one();
        }
    }

    async fn follow_once(self: &Arc<Self>) -> Result<(), JobsError> {
        let rooms = self.connection.rooms().await?;
        self.mirror.begin_epoch();
        let mut entries = rooms.jobs.watch().await?;
        if rooms.jobs.is_empty().await? {
            self.set_in_step(true);
        }
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(crate::failures::failed("follow the jobs of the cluster"))?;
            let is_current = entry.seen_current;
            self.see(&entry);
            if is_current {
                self.set_in_step(true);
            }
        }
        Ok(())
    }

    fn see(self: &Arc<Self>, entry: &Entry) {
        let Some(id) = job_of(&entry.key) else { return };
        if entry.operation != Operation::Put {
            self.mirror.remove(id);
            self.spawn_forget(id);
            return;
        }
        if self.lock_deleted().contains(&id) {
            return;
        }
        match SharedJob::decode(&entry.value, id) {
            Ok(shared) => {
                let is_ours = shared.home == self.node;
                let seen = Seen::of(shared, entry.revision);
                let job = Arc::clone(&seen.job);
                self.mirror.note(seen);
                if is_ours {
                    self.spawn_adopt(Job::clone(&job));
                }
            }
            Err(newer @ Unreadable::Newer { .. }) => {
                tracing::debug!(job = %id, error = %newer, "a job of an upgraded node");
            }
            Err(error) => {
                tracing::error!(job = %id, error = describe_chain(&error), "a record of the cluster cannot be read");
            }
        }
    }

    /// In a task of its own: nobody's news wait for this node's disk.
    fn spawn_adopt(self: &Arc<Self>, job: Job) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = shared.adopt(job).await {
                // The next round does it again.
                tracing::warn!(
                    error = describe_chain(&error),
                    "what became of a job is not in the journal yet"
                );
            }
        });
    }

    async fn adopt(&self, job: Job) -> Result<(), JobsError> {
        let (id, is_final) = (job.id, job.state.is_final());
        let own = self.own.get(id).await?;
        if let Some(own) = &own {
            if own.state.is_final() && !is_final && self.is_untold(id) {
                // It ended here in an earlier life, while the broker was away.
                self.owe(id);
            }
            // That another node runs it is no news for the journal: a start would take it for a crash.
            if job.state != JobState::Running && is_later(&job, own) {
                self.own.adopt(job).await?;
            }
        }
        if is_final {
            self.queue.ended(id);
        }
        Ok(())
    }

    /// Whether the broker, by its latest word, does not know that a job has ended.
    fn is_untold(&self, id: JobId) -> bool {
        let seen = self.mirror.get(id);
        seen.is_none_or(|seen| seen.is_ahead || !seen.job.state.is_final())
    }

    /// Another node has deleted a job, which it does only after its end.
    fn spawn_forget(self: &Arc<Self>, id: JobId) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = shared.own.remove(id).await {
                tracing::warn!(job = %id, error = describe_chain(&error), "a deleted job is still in the journal");
            }
        });
    }

    /// Brings into the bucket and the queue what they do not have of this node's jobs: on a line that `is_new` also what has
    /// ended. The `is_first` time, what this node had claimed in an earlier life is free again.
    async fn mend_bucket(&self, is_first: bool, is_new: bool) -> Result<(), JobsError> {
        if is_new {
            self.queue.share_again().await?;
        }
        let deleted: Vec<JobId> = self.lock_deleted().iter().copied().collect();
        for id in deleted {
            self.delete_shared(id).await?;
        }
        for own in self.own.list(&unfinished()).await? {
            let seen = self.mirror.get(own.id);
            let is_behind = seen
                .as_ref()
                .is_none_or(|seen| seen.revision == 0 || seen.is_ahead || is_later(&own, &seen.job));
            let there = match seen {
                Some(seen) if !is_behind => seen,
                Some(_) | None => self.share_latest(own.clone()).await?,
            };
            if there.job.state.is_final() {
                self.adopt(Job::clone(&there.job)).await?;
            } else if there.job.state != JobState::Fetching {
                if is_new && self.queue.is_here(own.id) && !own.stays {
                    // This process runs it, so what the stream has of it from before is not wanted.
                    self.queue.purge(own.id).await?;
                }
                if is_first {
                    self.queue.reclaim(own.id).await?;
                }
                self.queue.push(QueueEntry::of(&own)).await?;
            }
        }
        let owed: Vec<JobId> = {
            let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            owed.iter().copied().collect()
        };
        for id in owed {
            if let Some(job) = self.own.get(id).await? {
                self.share(job).await?;
                self.queue.purge(id).await?;
            }
            self.owed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
        }
        if is_new {
            self.bring_ends_back().await?;
        }
        Ok(())
    }

    /// A broker that has lost its disk knows nothing of what has ended, and one that was away while it ended may have another
    /// end of it, or an entry in its queue.
    async fn bring_ends_back(&self) -> Result<(), JobsError> {
        let latest = JobFilter {
            states: vec![JobState::Succeeded, JobState::Failed, JobState::Cancelled],
            newest_first: true,
            limit: BRING_BACK,
            ..JobFilter::default()
        };
        for job in self.own.list(&latest).await? {
            let is_there = self
                .mirror
                .get(job.id)
                .is_some_and(|seen| seen.revision != 0 && !seen.is_ahead && !replaces(&job, &seen.job));
            if !is_there {
                let id = job.id;
                self.share(job).await?;
                self.queue.purge(id).await?;
            }
        }
        Ok(())
    }

    /// Without the broker: what no other node can have is run here at once, and what another may have, once that has lost it.
    async fn work_alone(&self, since: Instant) -> Result<(), JobsError> {
        self.queue.keep_here().await?;
        let silence = self.connection.settings().lease * LEASES_OF_SILENCE;
        if SystemClock.now().saturating_duration_since(since) < silence {
            return Ok(());
        }
        for entry in self.queue.take_out() {
            self.put_back_alone(entry.id).await?;
            self.queue.push_here(entry).await?;
        }
        Ok(())
    }
}
