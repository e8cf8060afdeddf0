//! Keeps mirror, bucket and journal in step: follows every change of the bucket, brings into it what it does not have, and takes
//! this node's jobs back when the broker has been away for too long.

use std::collections::HashSet;
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
/// Between two looks at all jobs, in case something was missed.
const WHOLE_AGAIN: Duration = Duration::from_secs(60);
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

/// What was brought in step, and when.
#[derive(Clone, Copy)]
struct Mended {
    /// Of which line.
    epoch: u64,
    /// Since when the bucket was followed without a gap.
    in_step_since: Instant,
    /// When all jobs were looked at.
    whole_at: Instant,
}

/// How all jobs are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// The first one of this life: what this node had claimed in an earlier one is free again.
    is_first: bool,
    /// On a line that stands anew.
    is_new: bool,
}

/// Brings everything in step for as long as the store lives. What has changed is looked at as it comes; all jobs only when
/// news may have been missed, and now and then.
pub(crate) async fn mend(shared: Arc<Shared>) {
    let epochs = shared.connection.epochs();
    let mut last_up = SystemClock.now();
    let mut mended: Option<Mended> = None;
    loop {
        let epoch = *epochs.borrow();
        let done = if shared.connection.is_up() {
            last_up = SystemClock.now();
            match shared.in_step_since() {
                Some(in_step_since) => {
                    let is_whole = mended.is_none_or(|last| {
                        last.epoch != epoch
                            || last.in_step_since != in_step_since
                            || last_up.saturating_duration_since(last.whole_at) >= WHOLE_AGAIN
                    });
                    let round = is_whole.then(|| Round {
                        is_first: mended.is_none(),
                        is_new: mended.is_none_or(|last| last.epoch != epoch),
                    });
                    let looked = shared.mend_bucket(round).await;
                    if looked.is_ok() && is_whole {
                        mended = Some(Mended {
                            epoch,
                            in_step_since,
                            whole_at: last_up,
                        });
                    }
                    looked.map(drop)
                }
                None => Ok(()),
            }
        } else {
            shared.work_alone(last_up).await
        };
        if let Err(error) = done {
            tracing::debug!(
                error = describe_chain(&error),
                "jobs and cluster are not in step yet"
            );
        }
        tokio::select! {
            () = shared.unsettled.woken() => {
                // Not at once again and again, while the broker is on its way up or down.
                SystemClock.sleep_until(SystemClock.now() + PAUSE / 10).await;
            }
            () = SystemClock.sleep_until(SystemClock.now() + ROUND) => {}
        }
    }
}

impl Shared {
    fn in_step_since(&self) -> Option<Instant> {
        *self.in_step_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_in_step(&self, is_in_step: bool) {
        let mut since = self.in_step_since.lock().unwrap_or_else(PoisonError::into_inner);
        if is_in_step != since.is_some() {
            *since = is_in_step.then(|| SystemClock.now());
            drop(since);
            self.unsettled.wake();
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
        if self.deletions.contains(id) {
            return;
        }
        match SharedJob::decode(&entry.value, id) {
            Ok(shared) => {
                let is_ours = shared.home == self.node;
                let seen = Seen::of(shared, entry.revision);
                let job = Arc::clone(&seen.job);
                self.mirror.note(seen);
                if is_ours {
                    if self.mirror.get(id).is_some_and(|seen| seen.is_ahead) {
                        self.unsettled.add(id);
                    }
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
        let (shared, id) = (Arc::clone(self), job.id);
        tokio::spawn(async move {
            if let Err(error) = shared.adopt(job).await {
                tracing::warn!(
                    job = %id,
                    error = describe_chain(&error),
                    "what became of a job is not in the journal yet"
                );
                shared.unsettled.put_back(HashSet::from([id]));
            }
        });
    }

    async fn adopt(&self, job: Job) -> Result<(), JobsError> {
        let (id, is_final) = (job.id, job.state.is_final());
        let own = self.own.get(id).await?;
        if let Some(own) = &own {
            if own.state.is_final() && !is_final && self.is_untold(id) {
                // It ended here in an earlier life, while the broker was away.
                self.unsettled.add(id);
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
        // At once, so that nobody takes the journal's copy for one that the broker has lost.
        self.being_forgotten.mark(id);
        tokio::spawn(async move {
            match shared.own.remove(id).await {
                Ok(true) => {}
                // One that has not ended is brought back.
                Ok(false) => shared.unsettled.add(id),
                Err(error) => {
                    tracing::warn!(job = %id, error = describe_chain(&error), "a deleted job is still in the journal");
                }
            }
            shared.being_forgotten.unmark(id);
        });
    }

    /// Brings into the bucket and the queue what they do not have of this node's jobs: of those that have changed, and in a
    /// whole round of all. Returns how many were looked at.
    async fn mend_bucket(&self, round: Option<Round>) -> Result<usize, JobsError> {
        let changed = self.unsettled.take();
        let mended = self.mend_jobs(round, &changed).await;
        if mended.is_err() {
            self.unsettled.put_back(changed);
        }
        mended
    }

    pub(crate) async fn mend_jobs(
        &self,
        round: Option<Round>,
        changed: &HashSet<JobId>,
    ) -> Result<usize, JobsError> {
        let is_new = round.is_some_and(|round| round.is_new);
        if is_new {
            self.queue.share_again().await?;
        }
        self.tell_deletions().await?;
        let mut looked = 0;
        if let Some(round) = round {
            for own in self.own.list(&unfinished()).await? {
                self.settle(own, round).await?;
                looked += 1;
            }
        }
        for id in changed {
            if let Some(own) = self.own.get(*id).await? {
                self.settle(own, Round::default()).await?;
                looked += 1;
            }
        }
        if is_new {
            self.bring_ends_back().await?;
        }
        Ok(looked)
    }

    /// Brings one job of this node into bucket and queue.
    async fn settle(&self, own: Job, round: Round) -> Result<(), JobsError> {
        if own.state.is_final() {
            return self.bring_end_back(own).await;
        }
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
            if round.is_new && self.queue.is_here(own.id) && !own.stays {
                // This process runs it, so what the stream has of it from before is not wanted.
                self.queue.purge(own.id).await?;
            }
            if round.is_first {
                self.queue.reclaim(own.id).await?;
            }
            self.queue.push(QueueEntry::of(&own)).await?;
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
            self.bring_end_back(job).await?;
        }
        Ok(())
    }

    async fn bring_end_back(&self, job: Job) -> Result<(), JobsError> {
        let id = job.id;
        let seen = self.mirror.get(id);
        let is_there =
            seen.is_some_and(|seen| seen.revision != 0 && !seen.is_ahead && !replaces(&job, &seen.job));
        if is_there || self.being_forgotten.contains(id) || self.deletions.contains(id) {
            return Ok(());
        }
        self.share(job).await?;
        self.queue.purge(id).await
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
