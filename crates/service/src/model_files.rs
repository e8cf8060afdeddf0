//! From a model's name to its files on this machine. What is not here yet is fetched: the first request that names it begins
//! the one download, and everybody is told how far it is and when to come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pentimento_catalog::ModelEntry;
use pentimento_hub::{Found, HubError, ModelWork, Progress};
use pentimento_types::{ModelId, describe_chain};

use crate::inner::Inner;
use crate::named_models::find;
use crate::{ModelRole, ServiceError};

/// How long a request waits for files that may be here in a moment: a LoRA is small, and a sha256 is quickly compared.
const SHORT_WAIT: Duration = Duration::from_secs(2);
/// The bounds of what a caller is told to wait.
const SHORTEST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// Where nothing is known of the rate.
const UNKNOWN_RETRY: Duration = Duration::from_secs(10);

/// Files that are used, or that are on their way.
enum Obtained {
    Ready(Arc<ModelEntry>),
    Pending(ModelWork),
}

impl Inner {
    /// The entry of a model whose files can be used now.
    pub(crate) async fn find_usable(
        &self,
        role: ModelRole,
        name: &ModelId,
    ) -> Result<Arc<ModelEntry>, ServiceError> {
        let entry = self.find(role, name)?;
        let mut usable = self.usable(vec![(role, entry)]).await?;
        usable
            .pop()
            .ok_or_else(|| ServiceError::internal("one entry has become none"))
    }

    /// The entries of models whose files can be used now, with their places on this machine, in the same order.
    ///
    /// Everything that is missing is begun at once, whichever of it is then told to the caller.
    pub(crate) async fn usable(
        &self,
        entries: Vec<(ModelRole, Arc<ModelEntry>)>,
    ) -> Result<Vec<Arc<ModelEntry>>, ServiceError> {
        let mut obtained = Vec::with_capacity(entries.len());
        for (role, entry) in &entries {
            obtained.push(self.obtain(*role, entry).await);
        }
        let until = self.clock.now() + SHORT_WAIT;
        let mut usable = Vec::with_capacity(entries.len());
        for ((role, entry), obtained) in entries.into_iter().zip(obtained) {
            usable.push(match obtained? {
                Obtained::Ready(entry) => entry,
                Obtained::Pending(work) => self.wait_for(role, &entry, work, until).await?,
            });
        }
        Ok(usable)
    }

    /// The same for one entry, however long it takes.
    pub(crate) async fn usable_in_the_end(
        &self,
        role: ModelRole,
        entry: &Arc<ModelEntry>,
    ) -> Result<Arc<ModelEntry>, ServiceError> {
        loop {
            match self.obtain(role, entry).await? {
                Obtained::Ready(located) => return Ok(located),
                Obtained::Pending(mut work) => {
                    work.end()
                        .await
                        .map_err(|error| not_obtained(role, entry, &error))?;
                }
            }
        }
    }

    /// Begins to fetch or to check it, and does not wait. What goes wrong is said to whoever needs it.
    pub(crate) async fn begin_to_obtain(&self, role: ModelRole, entry: &Arc<ModelEntry>) {
        let _ = self.obtain(role, entry).await;
    }

    async fn obtain(&self, role: ModelRole, entry: &Arc<ModelEntry>) -> Result<Obtained, ServiceError> {
        let found = self.looks.look(&self.hub, entry).await;
        match &found {
            Found::Ready(located) => Ok(Obtained::Ready(Arc::clone(located))),
            Found::Absent | Found::Unchecked => match self.hub.obtain(entry, &found) {
                Ok(work) => Ok(Obtained::Pending(work)),
                Err(error) => Err(not_obtained(role, entry, &error)),
            },
            Found::Wrong(error) => Err(not_obtained(role, entry, error)),
            Found::Unavailable(reason) => {
                tracing::warn!(model = %entry.name, source = %entry.source, ?reason, "a model cannot be used");
                Err(unavailable(role, entry, reason.to_string()))
            }
        }
    }

    async fn wait_for(
        &self,
        role: ModelRole,
        entry: &Arc<ModelEntry>,
        mut work: ModelWork,
        until: Instant,
    ) -> Result<Arc<ModelEntry>, ServiceError> {
        let ended = tokio::select! {
            biased;
            ended = work.end() => ended,
            () = self.clock.sleep_until(until) => return Err(on_its_way(role, entry, work.progress())),
        };
        ended.map_err(|error| not_obtained(role, entry, &error))?;
        match self.looks.look(&self.hub, entry).await {
            Found::Ready(located) => Ok(located),
            Found::Wrong(error) => Err(not_obtained(role, entry, &error)),
            Found::Unavailable(reason) => Err(unavailable(role, entry, reason.to_string())),
            // It has changed or gone since.
            Found::Absent | Found::Unchecked => Err(on_its_way(role, entry, work.progress())),
        }
    }

    pub(crate) fn find(&self, role: ModelRole, name: &ModelId) -> Result<Arc<ModelEntry>, ServiceError> {
        find(&self.catalog, role, name)
    }
}

fn unavailable(role: ModelRole, entry: &ModelEntry, reason: String) -> ServiceError {
    ServiceError::ModelUnavailable {
        role,
        name: entry.name.clone(),
        reason,
    }
}

fn not_obtained(role: ModelRole, entry: &ModelEntry, error: &HubError) -> ServiceError {
    tracing::warn!(model = %entry.name, source = %entry.source, error = describe_chain(error), "a model's files cannot be used");
    unavailable(role, entry, error.to_string())
}

fn on_its_way(role: ModelRole, entry: &ModelEntry, progress: Progress) -> ServiceError {
    let retry_after = progress.time_left().unwrap_or(UNKNOWN_RETRY);
    ServiceError::ModelOnItsWay {
        role,
        name: entry.name.clone(),
        progress,
        retry_after: retry_after.clamp(SHORTEST_RETRY, LONGEST_RETRY),
    }
}
