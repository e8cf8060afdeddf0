//! What a caller calls a request and what a dialect calls a job, once in the whole cluster: whoever writes the hashed name into
//! the bucket first has it.
//!
//! A name is taken before the record is stored, so there may be a name without a record: its node is about to store the job, or
//! has it and could not tell the cluster, or has died in between, or the job is deleted. Only that node knows which, so it is
//! asked. While it cannot be heard nobody takes the name over, for as long as a node may be silent: the request would be made
//! a second time.

use std::sync::PoisonError;
use std::time::Duration;

use pentimento_jobs::JobsError;
use pentimento_types::{Clock as _, Job, JobId, SystemClock};

use crate::asking::Word;
use crate::bucket::{Bucket, NotWritten, Value};
use crate::envelope::{NameHolder, plain, read_plain};
use crate::settings::LEASES_OF_SILENCE;
use crate::shared::Shared;

/// How long a job may be just being stored.
const BEING_STORED: Duration = Duration::from_secs(5);
/// Between two looks whether it is stored.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Names in doubt that are remembered; more are no cluster's.
const MOST_DOUBTS: usize = 10_000;

/// What has become of a name.
#[derive(Debug)]
pub(crate) enum Named {
    /// It is the new job's.
    Ours,
    /// It stands for this job.
    Taken(Box<Job>),
    /// It may stand for a job of a node that cannot be heard.
    InDoubt,
}

impl Shared {
    /// Takes a name for a job of this node, unless it `stands` for another one.
    pub(crate) async fn take_name(
        &self,
        key: &str,
        id: JobId,
        stands: impl Fn(&Job) -> bool,
    ) -> Result<Named, JobsError> {
        let names = self.connection.rooms().await?.names;
        let ours = plain(&NameHolder {
            job: id,
            home: Some(self.node.clone()),
        });
        let patience = SystemClock.now() + BEING_STORED;
        loop {
            match names.create(key, ours.clone()).await {
                Ok(_) => return Ok(Named::Ours),
                Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(error)) => return Err(error),
            }
            let Some(Value { bytes, revision }) = names.get(key).await? else {
                // Given back in between.
                continue;
            };
            if let Some(holder) = read_plain::<NameHolder>(&bytes) {
                if holder.job == id {
                    return Ok(Named::Ours);
                }
                match self.find(holder.job).await? {
                    Some(job) if stands(&job) => return Ok(Named::Taken(Box::new(job))),
                    Some(_) => {}
                    None => match self.word_of(&holder).await {
                        Some(Word::HasNot) => {}
                        Some(Word::Has | Word::Stores) if SystemClock.now() < patience => {
                            SystemClock.sleep_until(SystemClock.now() + LOOK_AGAIN).await;
                            continue;
                        }
                        None if self.was_long_in_doubt(key, revision) => {}
                        Some(Word::Has | Word::Stores) | None => return Ok(Named::InDoubt),
                    },
                }
            }
            match names.update(key, ours.clone(), revision).await {
                Ok(_) => return Ok(Named::Ours),
                // Somebody was faster.
                Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(error)) => return Err(error),
            }
        }
    }

    async fn word_of(&self, holder: &NameHolder) -> Option<Word> {
        let home = holder.home.as_ref()?;
        self.ask(home, holder.job).await
    }

    /// Whether nobody could say what a name stands for since longer ago than a node may be silent.
    fn was_long_in_doubt(&self, key: &str, revision: u64) -> bool {
        let now = SystemClock.now();
        let silence = self.connection.settings().lease * LEASES_OF_SILENCE;
        let mut doubts = self.names_in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if doubts.len() >= MOST_DOUBTS {
            doubts.retain(|_, (_, since)| now.saturating_duration_since(*since) < 2 * silence);
        }
        let doubt = doubts.entry(key.to_owned()).or_insert((revision, now));
        if doubt.0 != revision {
            *doubt = (revision, now);
        }
        let is_over = now.saturating_duration_since(doubt.1) >= silence;
        if is_over {
            doubts.remove(key);
        }
        is_over
    }
}

/// Gives a name back that a job has. What fails is found out by the next who wants the name.
pub(crate) async fn give_back(names: &Bucket, key: &str, id: JobId) {
    let Ok(Some(Value { bytes, revision })) = names.get(key).await else {
        return;
    };
    if read_plain::<NameHolder>(&bytes).is_some_and(|holder| holder.job == id) {
        let _ = names.delete(key, Some(revision)).await;
    }
}

/// The job that has a name.
pub(crate) async fn holder(names: &Bucket, key: &str) -> Result<Option<JobId>, JobsError> {
    let found = names.get(key).await?;
    Ok(found
        .and_then(|value| read_plain::<NameHolder>(&value.bytes))
        .map(|holder| holder.job))
}
