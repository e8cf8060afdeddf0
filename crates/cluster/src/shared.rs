//! What the records of a cluster are made of, for those who change them, bring them in step, and answer for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pentimento_jobs::{AgeClock, JobFilter, JobStore as _, JobsError, SqliteJobs, is_later};
use pentimento_types::{Clock, Job, JobId, JobState};

use crate::connection::Connection;
use crate::deletions::Deletions;
use crate::envelope::ENVELOPE_VERSION;
use crate::marks::Marks;
use crate::mirror::{Mirror, Seen};
use crate::unsettled::Unsettled;
use crate::{NodeId, queue};

/// What tasks and callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    /// The journal of this node.
    pub(crate) own: SqliteJobs,
    pub(crate) connection: Connection,
    pub(crate) mirror: Mirror,
    pub(crate) queue: Arc<queue::Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How old keys are.
    pub(crate) ages: AgeClock,
    /// Since when everything in the bucket is known here; None while it is not.
    pub(crate) in_step_since: Mutex<Option<Instant>>,
    /// Jobs that bucket or queue may not know as the journal does.
    pub(crate) unsettled: Arc<Unsettled>,
    /// Jobs that were deleted here, and that the bucket may still have.
    pub(crate) deletions: Deletions,
    /// Jobs that others have deleted, until the journal has forgotten them as well.
    pub(crate) being_forgotten: Marks<JobId>,
    /// Jobs whose names are taken and that are not in the journal yet.
    pub(crate) being_stored: Marks<JobId>,
    /// Names whose jobs were not found, at which revision, and since when.
    pub(crate) names_in_doubt: Mutex<HashMap<String, (u64, Instant)>>,
}

/// All states in which something is still to come.
pub(crate) fn unfinished() -> JobFilter {
    JobFilter {
        states: vec![JobState::Fetching, JobState::Queued, JobState::Running],
        ..JobFilter::default()
    }
}

/// The one of two copies that is further; the first where neither is.
pub(crate) fn later(one: Option<Job>, other: Option<Job>) -> Option<Job> {
    match (one, other) {
        (Some(one), Some(other)) if is_later(&other, &one) => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

impl Shared {
    /// What this node alone has changed.
    pub(crate) fn note_ours(&self, job: Job) {
        let holder = (job.state == JobState::Running).then(|| self.node.clone());
        let form = self.form_of(job.id);
        self.mirror.note(Seen {
            job: Arc::new(job),
            home: self.node.clone(),
            holder,
            revision: 0,
            form,
            is_ahead: true,
        });
    }

    /// The version of the form in which a record is written: the one that it has, and for a new one this program's.
    pub(crate) fn form_of(&self, id: JobId) -> u32 {
        self.mirror.get(id).map_or(ENVELOPE_VERSION, |seen| seen.form)
    }

    /// The latest copy of a job that can be found anywhere.
    pub(crate) async fn find(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        if self.deletions.contains(id) {
            // The bucket may have it still.
            return Ok(None);
        }
        let seen = self.mirror.get(id);
        let may_be_ours = seen.as_ref().is_none_or(|seen| seen.home == self.node);
        let own = if may_be_ours {
            self.own.get(id).await?
        } else {
            None
        };
        let seen = seen.map(|seen| Job::clone(&seen.job));
        match later(own, seen) {
            Some(job) => Ok(Some(job)),
            None => Ok(self.read(id).await?.map(|seen| Job::clone(&seen.job))),
        }
    }
}
