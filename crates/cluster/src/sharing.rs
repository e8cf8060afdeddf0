//! How a job is changed where several nodes can: by compare-and-set in the bucket while the broker is there, and in the journal
//! of its home while it is not. When both have gone on without each other, the copy that is further counts, and of two ends the
//! home's.

use pentimento_jobs::{JobStore as _, JobsError, Transition, is_later};
use pentimento_types::{Job, JobId, JobState};

use crate::NodeId;
use crate::bucket::{NotWritten, Value};
use crate::envelope::{LARGEST, SharedJob};
use crate::failures::{away, failed};
use crate::mirror::Seen;
use crate::shared::Shared;
use crate::subjects::job_key;

/// So many changes of one job never meet, unless something is wrong.
const TRIES: usize = 64;

/// What became of a write.
enum Written {
    Done,
    /// Somebody has changed the job since; the mirror has what it is now.
    Meanwhile,
}

impl Shared {
    /// Changes a job, wherever its home is.
    pub(crate) async fn change(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        for _ in 0..TRIES {
            if !self.connection.is_up() {
                return self.change_alone(id, transition).await;
            }
            let base = match self.latest(id).await {
                Ok(Some(base)) => base,
                Ok(None) => return Err(JobsError::NotFound { id }),
                Err(error) => return self.change_alone_or(error, id, transition).await,
            };
            let is_ours = base.home == self.node;
            let mut job = Job::clone(&base.job);
            transition.clone().apply(&mut job, self.clock.wall())?;
            let holder = (job.state == JobState::Running).then(|| match transition {
                Transition::Start { .. } => Some(self.node.clone()),
                Transition::Fetched { .. }
                | Transition::Requeue { .. }
                | Transition::PutBack { .. }
                | Transition::Crash { .. }
                | Transition::Succeed { .. }
                | Transition::Fail { .. }
                | Transition::Cancel => base.holder.clone(),
            });
            match self.write(&base, job.clone(), holder.flatten()).await {
                Ok(Written::Done) => {
                    if is_ours {
                        self.own.adopt(job.clone()).await?;
                    }
                    return Ok(job);
                }
                Ok(Written::Meanwhile) => {}
                Err(error) => return self.change_alone_or(error, id, transition).await,
            }
        }
        Err(JobsError::Backend {
            what: "change the job",
            source: "too many others change it at the same time".into(),
        })
    }

    /// Where the broker has failed in the middle of it: a home goes on without it.
    async fn change_alone_or(
        &self,
        error: JobsError,
        id: JobId,
        transition: Transition,
    ) -> Result<Job, JobsError> {
        match self.change_alone(id, transition).await {
            Err(JobsError::Backend { .. }) => Err(error),
            changed => changed,
        }
    }

    /// Changes a job of this node in its journal.
    async fn change_alone(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let seen = self.mirror.get(id);
        if seen.as_ref().is_some_and(|seen| seen.home != self.node) {
            return Err(away());
        }
        let Some(own) = self.own.get(id).await? else {
            // It may be another node's.
            return Err(away());
        };
        if let Some(seen) = seen.filter(|seen| is_later(&seen.job, &own)) {
            self.own.adopt(Job::clone(&seen.job)).await?;
        }
        let job = self.own.transition(id, transition).await?;
        self.note_ours(job.clone());
        self.unsettled.add(id);
        Ok(job)
    }

    /// The broker has been away for so long that whoever ran a job of this node has lost it: it waits again, which is held
    /// against nobody.
    pub(crate) async fn put_back_alone(&self, id: JobId) -> Result<(), JobsError> {
        let Some(seen) = self.mirror.get(id) else {
            return Ok(());
        };
        if seen.job.state != JobState::Running {
            return Ok(());
        }
        let attempt = seen.job.attempt;
        self.change_alone(id, Transition::PutBack { attempt })
            .await
            .map(drop)
    }

    /// A job as the bucket has it, after this node's own changes are in it.
    async fn latest(&self, id: JobId) -> Result<Option<Seen>, JobsError> {
        let seen = self.mirror.get(id);
        let may_be_ours = seen.as_ref().is_none_or(|seen| seen.home == self.node);
        let own = if may_be_ours {
            self.own.get(id).await?
        } else {
            None
        };
        if let Some(own) = own {
            let is_shared = |seen: &Seen| seen.revision != 0 && !is_later(&own, &seen.job);
            return match seen.filter(is_shared) {
                Some(seen) => Ok(Some(seen)),
                None => self.share_latest(own).await.map(Some),
            };
        }
        match seen.filter(|seen| seen.revision != 0) {
            Some(seen) => Ok(Some(seen)),
            None => {
                let there = self.read(id).await?;
                // A copy here may be further than what the broker still has.
                Ok(there.and_then(|there| self.mirror.get(id).or(Some(there))))
            }
        }
    }

    /// Reads a job from the bucket.
    pub(crate) async fn read(&self, id: JobId) -> Result<Option<Seen>, JobsError> {
        let rooms = self.connection.rooms().await?;
        let Some(Value { bytes, revision }) = rooms.jobs.get(&job_key(id)).await? else {
            return Ok(None);
        };
        let shared = SharedJob::decode(&bytes, id).map_err(failed("read a job of the cluster"))?;
        let seen = Seen::of(shared, revision);
        self.mirror.note(seen.clone());
        Ok(Some(seen))
    }

    /// Brings a job of this node into the bucket: as the journal has it, or as it was last seen there, when another node had
    /// brought it further and the broker has lost that.
    pub(crate) async fn share_latest(&self, own: Job) -> Result<Seen, JobsError> {
        match self.mirror.get(own.id).filter(|seen| is_later(&seen.job, &own)) {
            Some(seen) => Box::pin(self.share_as(Job::clone(&seen.job), seen.holder)).await,
            None => self.share(own).await,
        }
    }

    /// Brings a job of this node into the bucket, unless that is further; returns what is there then.
    pub(crate) async fn share(&self, job: Job) -> Result<Seen, JobsError> {
        let holder = (job.state == JobState::Running).then(|| self.node.clone());
        Box::pin(self.share_as(job, holder)).await
    }

    async fn share_as(&self, job: Job, holder: Option<NodeId>) -> Result<Seen, JobsError> {
        let rooms = self.connection.rooms().await?;
        let (id, key) = (job.id, job_key(job.id));
        let known = self
            .mirror
            .get(id)
            .map(|seen| seen.revision)
            .filter(|revision| *revision != 0);
        let ours = SharedJob::new(self.node.clone(), holder, job).in_form(self.form_of(id));
        let bytes = ours.encode().map_err(|too_large| JobsError::TooLarge {
            bytes: too_large.0,
            limit: LARGEST,
        })?;
        let mut is_first = known.is_none();
        for _ in 0..TRIES {
            let written = if std::mem::take(&mut is_first) {
                rooms.jobs.create(&key, bytes.clone()).await
            } else {
                match self.read(id).await? {
                    None => rooms.jobs.create(&key, bytes.clone()).await,
                    Some(there) if replaces(&ours.job, &there.job) => {
                        rooms.jobs.update(&key, bytes.clone(), there.revision).await
                    }
                    Some(there) => return Ok(there),
                }
            };
            match written {
                Ok(revision) => {
                    let seen = Seen::of(ours, revision);
                    self.mirror.note(seen.clone());
                    return Ok(seen);
                }
                Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(error)) => return Err(error),
            }
        }
        Err(JobsError::Backend {
            what: "share the job with the cluster",
            source: "too many others change it at the same time".into(),
        })
    }

    /// Writes a job over the one that was seen.
    async fn write(&self, base: &Seen, job: Job, holder: Option<NodeId>) -> Result<Written, JobsError> {
        let rooms = self.connection.rooms().await?;
        let (id, key) = (job.id, job_key(job.id));
        let shared = SharedJob::new(base.home.clone(), holder, job).in_form(base.form);
        let bytes = shared.encode().map_err(|too_large| JobsError::TooLarge {
            bytes: too_large.0,
            limit: LARGEST,
        })?;
        let failure = match rooms.jobs.update(&key, bytes.clone(), base.revision).await {
            Ok(revision) => {
                self.mirror.note(Seen::of(shared, revision));
                return Ok(Written::Done);
            }
            Err(NotWritten::Conflict) => None,
            Err(NotWritten::Failed(error)) => Some(error),
        };
        // It may be ours that is there: the answer can be lost while the write is not.
        let there = match (rooms.jobs.get(&key).await, failure) {
            (Ok(there), _) => there,
            (Err(_), Some(error)) | (Err(error), None) => return Err(error),
        };
        match there {
            Some(there) if there.bytes == bytes => {
                self.mirror.note(Seen::of(shared, there.revision));
                Ok(Written::Done)
            }
            Some(there) => {
                let other = SharedJob::decode(&there.bytes, id);
                let other = other.map_err(failed("read a job of the cluster"))?;
                self.mirror.note(Seen::of(other, there.revision));
                Ok(Written::Meanwhile)
            }
            None => {
                // Deleted, or lost with the broker's disk, in which case its home brings it back.
                if base.home != self.node {
                    return Err(failure_of_loss());
                }
                self.mirror.begin_epoch_of(id);
                Ok(Written::Meanwhile)
            }
        }
    }
}

/// Whether this node's copy belongs into the bucket in place of the one there. Its own end does even where the bucket has
/// another: a home that was cut off has told its own to whoever asked it, and to the webhook's receiver.
pub(crate) fn replaces(ours: &Job, there: &Job) -> bool {
    is_later(ours, there) || (ours.state.is_final() && ours != there)
}

fn failure_of_loss() -> JobsError {
    JobsError::Backend {
        what: "change the job",
        source: "the broker does not know it any more; its own node brings it back".into(),
    }
}
